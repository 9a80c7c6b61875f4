/* What the servers put inside WebSocket messages: events as they are, or in a protocol of their own. */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARTIAL = 0 };

static void refuse(const char *what, const unsigned char *data, size_t size) {
    if (!damaged++) fprintf(stderr, "load: %s: %.*s\n", what, (int)(size < 300 ? size : 300), data);
}

/* Each takes one packet. Returns its length, PARTIAL if it is not all there. */
typedef size_t taking(struct client *c, const unsigned char *data, size_t size);

static size_t take_plain(struct client *c, const unsigned char *data, size_t size) {
    if (size > 8 && !memcmp(data, "{\"seq\":\"", 8)) take_event(c, (const char *)data, size);
    else take_word(c);
    return size;
}

/* https://docs.nats.io/reference/reference-protocols/nats-protocol */
static size_t take_nats(struct client *c, const unsigned char *data, size_t size) {
    const unsigned char *end = memmem(data, size, "\r\n", 2);
    size_t line = end ? (size_t)(end - data) + 2 : 0;
    if (!end) return PARTIAL;
    if (line < 6) return line;
    if (!memcmp(data, "MSG ", 4)) {
        const unsigned char *last = memrchr(data, ' ', line);
        size_t body = strtoul((const char *)last, NULL, 10);
        if (size < line + body + 2) return PARTIAL;
        take_event(c, (const char *)data + line, body);
        return line + body + 2;
    }
    if (!memcmp(data, "PING", 4)) send_frame(c, 2, "PONG\r\n", 6);
    else if (!memcmp(data, "PONG", 4) || (!memcmp(data, "INFO", 4) && !c->subscribed)) take_word(c);
    else if (!memcmp(data, "-ERR", 4)) refuse("NATS", data, line);
    return line;
}

/* MQTT 3.1.1, section 2.2 */
static size_t take_mqtt(struct client *c, const unsigned char *data, size_t size) {
    size_t length = 0, head = 1, topic;
    for (int shift = 0;; shift += 7) {
        if (head >= size) return PARTIAL;
        length |= (size_t)(data[head] & 127) << shift;
        if (!(data[head++] & 128)) break;
    }
    if (size < head + length) return PARTIAL;
    data += head;
    switch (data[-(long)head] >> 4) {
    case 2: /* CONNACK */
        if (length != 2 || data[1]) refuse("MQTT: CONNACK", data, length);
        take_word(c);
        break;
    case 3: /* PUBLISH at QoS 0 */
        topic = length < 2 ? length : (size_t)(data[0] << 8 | data[1]) + 2;
        if (topic >= length) refuse("MQTT: PUBLISH", data, length);
        else take_event(c, (const char *)data + topic, length - topic);
        break;
    case 9: /* SUBACK */
        for (size_t i = 2; i < length; i++) {
            if (data[i]) refuse("MQTT: SUBACK", data, length);
        }
        take_word(c);
        break;
    case 11: /* UNSUBACK */
        take_word(c);
        break;
    default: refuse("MQTT: not known", data, length);
    }
    return head + length;
}

/* https://stomp.github.io/stomp-specification-1.2.html */
static size_t take_stomp(struct client *c, const unsigned char *data, size_t size) {
    const unsigned char *body, *length, *end;
    if (*data == '\n' || *data == '\r') return 1; /* a heartbeat, or the end of the line after a frame */
    if (!(body = memmem(data, size, "\n\n", 2))) return PARTIAL;
    body += 2;
    length = memmem(data, (size_t)(body - data), "\ncontent-length:", 16);
    end = length ? body + strtoul((const char *)length + 16, NULL, 10) : memchr(body, 0, size - (size_t)(body - data));
    if (!end || end >= data + size) return PARTIAL;
    if (!memcmp(data, "MESSAGE\n", 8)) take_event(c, (const char *)body, (size_t)(end - body));
    else if (!memcmp(data, "CONNECTED\n", 10) || !memcmp(data, "RECEIPT\n", 8)) take_word(c);
    else refuse("STOMP", data, (size_t)(end - data));
    return (size_t)(end - data) + 1;
}

/* https://socket.io/docs/v4/engine-io-protocol/ and .../socket-io-protocol/ */
static size_t take_engine_io(struct client *c, const unsigned char *data, size_t size) {
    static const char head[] = "42[\"event\",";
    if (size == 1 && *data == '2') send_frame(c, 1, "3", 1);
    else if (size > sizeof head && !memcmp(data, head, sizeof head - 1) && data[size - 1] == ']')
        take_event(c, (const char *)data + sizeof head - 1, size - sizeof head);
    else if (*data == '0' || (size > 1 && *data == '4' && (data[1] == '0' || data[1] == '2'))) take_word(c);
    else refuse("Socket.IO", data, size);
    return size;
}

/* Note the position that stands between `before` and the next `end`. */
static void take_position(struct client *c, const unsigned char *data, size_t size, const char *before, char end) {
    const unsigned char *from = memmem(data, size, before, strlen(before)), *last;
    if (!from) return;
    from += strlen(before);
    last = memchr(from, end, size - (size_t)(from - data));
    if (!last || last - from >= MOST_POSITION) {
        refuse("a position", data, size);
        return;
    }
    memcpy(c->position, from, (size_t)(last - from));
    c->position[last - from] = 0;
}

static int begins(const unsigned char *data, size_t size, const char *with) {
    return size >= strlen(with) && !memcmp(data, with, strlen(with));
}

/* docs/protocol.md, towerbus.v1. The notice of a position is awaited by those that come back, and comes to all at times. */
static size_t take_v1(struct client *c, const unsigned char *data, size_t size) {
    static const char envelope[] = "{\"group\":", payload[] = ",\"data\":";
    const unsigned char *text = memmem(data, size, payload, sizeof payload - 1);
    if (begins(data, size, "{\"error\"")) refuse("towerbus.v1", data, size);
    if (begins(data, size, "{\"gap\"") || memmem(data, size, "\"lost\":{", 8)) c->told = 1;
    else if (begins(data, size, "{\"stale\"") || begins(data, size, "{\"reconnect\"")) return size;
    take_position(c, data, text ? (size_t)(text - data) : size, "\"position\":\"", '"');
    if (text && begins(data, size, envelope)) {
        text += sizeof payload - 1;
        take_event(c, (const char *)text, (size_t)(data + size - text) - 1);
    } else if (begins(data, size, "{\"accept\"") || begins(data, size, "{\"groups_current\"") || c->words) {
        take_word(c);
    }
    return size;
}

/* Nchan's subprotocol ws+meta.nchan: lines about a message, an empty one, the message. */
static size_t take_nchan_meta(struct client *c, const unsigned char *data, size_t size) {
    const unsigned char *end = memmem(data, size, "\n\n", 2);
    if (!end || !begins(data, size, "id: ")) {
        refuse("Nchan", data, size);
        return size;
    }
    take_position(c, data, (size_t)(end - data) + 1, "id: ", '\n');
    take_event(c, (const char *)end + 2, size - (size_t)(end + 2 - data));
    return size;
}

static const struct {
    const char *name;
    taking *take;
    int whole; /* a message is a packet; elsewhere packets may go over the ends of messages */
} framings[] = {[PLAIN] = {"plain", take_plain, 1},
                [NATS] = {"nats", take_nats, 0},
                [MQTT] = {"mqtt", take_mqtt, 0},
                [STOMP] = {"stomp", take_stomp, 0},
                [ENGINE_IO] = {"engine.io", take_engine_io, 1},
                [V1] = {"towerbus.v1", take_v1, 1},
                [NCHAN_META] = {"nchan.meta", take_nchan_meta, 1}};

enum framing framing_named(const char *name) {
    for (size_t i = 0; i < sizeof framings / sizeof *framings; i++) {
        if (!strcmp(framings[i].name, name)) return (enum framing)i;
    }
    fprintf(stderr, "load: there is no framing %s\n", name);
    exit(2);
}

static void take_packets(struct client *c, const unsigned char *data, size_t size) {
    unsigned char *rest = NULL;
    size_t at = 0, took = 1;
    while (at < size && c->state == OPEN && (took = framings[framing].take(c, data + at, size - at))) at += took;
    if (at < size && c->state == OPEN) {
        rest = malloc(size - at);
        memcpy(rest, data + at, size - at);
    }
    free(c->rest);
    c->rest = rest;
    c->rest_size = rest ? size - at : 0;
}

void take_message(struct client *c, const unsigned char *data, size_t size) {
    unsigned char *joined;
    size_t all = c->rest_size + size;
    if (!size) return;
    if (framings[framing].whole) {
        framings[framing].take(c, data, size);
        return;
    }
    if (!c->rest) {
        take_packets(c, data, size);
        return;
    }
    joined = malloc(all);
    memcpy(joined, c->rest, c->rest_size);
    memcpy(joined + c->rest_size, data, size);
    take_packets(c, joined, all);
    free(joined);
}
