/* The clients: their handshakes and WebSocket frames (RFC 6455). */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char KEY[] = "dGhlIHNhbXBsZSBub25jZQ=="; /* RFC 6455's example and its answer: no SHA-1 needed here */
static const char ACCEPT[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
static const char OFFER[] =
    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";

struct client clients[MAX_CLIENTS];
int count, shaking, waiting, hearing, ws_port, greetings, replies, binary;
int next_replies, back_replies;
int compressed;  /* permessage-deflate (RFC 7692) is offered */
int coming_back; /* clients that were cut and are not yet back */
struct bytes heads[KINDS], firsts[KINDS], hello, next_own;
struct bytes back_head, back; /* the handshake and the words of a client that comes back, where they are others */
enum framing framing;
static unsigned char input[1 << 21];

static void hang_up(struct client *c) {
    struct linger at_once = {1, 0}; /* no TIME_WAIT: the ports are wanted again */
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(c->fd);
    free(c->part);
    free(c->rest);
    c->part = c->rest = NULL;
    c->part_size = c->rest_size = 0;
}

void reset(struct client *c) {
    hang_up(c);
    memset(c, 0, sizeof *c);
    c->own = c->before = NONE;
}

/* The server has let go of it. */
void lose(struct client *c) {
    if (c->state == SHAKING) shaking--;
    if (c->words) waiting--;
    if (c->hears && !c->stalled && !c->coming) hearing--;
    if (!c->stalled) gone++;
    reset(c);
}

void send_frame(struct client *c, int opcode, const void *data, size_t size) {
    static unsigned char frame[MOST_MESSAGE + 16];
    const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d}, *from = data;
    unsigned char *at = frame;
    if (size > MOST_MESSAGE - 1) die("a message is too long");
    *at++ = (unsigned char)(0x80 | opcode);
    if (size < 126) {
        *at++ = (unsigned char)(0x80 | size);
    } else {
        *at++ = 0x80 | 126;
        *at++ = (unsigned char)(size >> 8);
        *at++ = (unsigned char)size;
    }
    memcpy(at, mask, 4);
    at += 4;
    for (size_t i = 0; i < size; i++) *at++ = from[i] ^ mask[i & 3];
    if (send(c->fd, frame, (size_t)(at - frame), MSG_NOSIGNAL) < 0) lose(c);
}

/* Have a client say something that so many words answer. */
void say(struct client *c, struct bytes what, int words) {
    static char message[MOST_MESSAGE];
    struct blanks blanks = {.own = c->own, .before = c->before, .position = c->position};
    size_t size = expand(message, what, &blanks);
    if (words && !c->words) waiting++;
    c->words += (uint32_t)words;
    send_frame(c, binary ? 2 : 1, message, size);
}

static void take_frame(struct client *c, const unsigned char *head, const unsigned char *data, size_t size) {
    int opcode = head[0] & 15;
    if (opcode == 1 || opcode == 2) wire += (long)size;
    if (head[0] & 0x40 && !(compressed && (data = inflated(data, size, &size)))) {
        damaged++;
        return;
    }
    if (opcode == 8) lose(c);
    else if (opcode == 9) send_frame(c, 10, data, size);
    else if ((opcode == 1 || opcode == 2) && head[0] & 0x80) take_message(c, data, size);
    else if (opcode != 10) damaged++;
}

/* Take one whole frame. Returns its length, 0 if it is not all there. */
static size_t frame(struct client *c, const unsigned char *at, size_t size) {
    size_t head = 2, length;
    if (size < 2) return 0;
    length = at[1] & 127;
    if (length == 126) {
        head = 4;
        if (size < head) return 0;
        length = (size_t)at[2] << 8 | at[3];
    } else if (length == 127) {
        head = 10;
        if (size < head) return 0;
        length = 0;
        for (int i = 2; i < 10; i++) length = length << 8 | at[i];
    }
    if (size < head + length) return 0;
    take_frame(c, at, at + head, length);
    return head + length;
}

/* Take the answer to the handshake. Returns its length, 0 if it is not all there. */
static size_t shaken(struct client *c, const unsigned char *at, size_t size) {
    const unsigned char *end = memmem(at, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (size < 12 || memcmp(at, "HTTP/1.1 101", 12) || !memmem(at, size, ACCEPT, strlen(ACCEPT))) {
        fprintf(stderr, "load: handshake refused: %.*s\n", (int)(end - at), at);
        exit(2);
    }
    if (compressed && !memmem(at, (size_t)(end - at), "permessage-deflate", 18)) {
        fprintf(stderr, "load: the server does not compress: %.*s\n", (int)(end - at), at);
        exit(2);
    }
    c->state = OPEN;
    shaking--;
    if (hello.size) say(c, hello, 0);
    if (c->coming && !c->words) come_further(c);
    return (size_t)(end - at) + 4;
}

void receive(struct client *c) {
    size_t have = c->part_size, at = 0, took;
    memcpy(input, c->part, have);
    ssize_t got = recv(c->fd, input + have, sizeof input - have, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        lose(c);
        return;
    }
    have += (size_t)got;
    do {
        took = c->state == SHAKING ? shaken(c, input + at, have - at) : frame(c, input + at, have - at);
        at += took;
    } while (took && at < have && c->state != CLOSED);
    if (c->state == CLOSED) return;
    c->part_size = have - at;
    if (!c->part_size) {
        free(c->part);
        c->part = NULL;
    } else {
        c->part = realloc(c->part, c->part_size);
        memcpy(c->part, input + at, c->part_size);
    }
}

/* Open a connection for a client, and begin the handshake. */
static void shake(struct client *c, struct bytes head) {
    static char request[2 * MOST_MESSAGE], line[512];
    struct blanks blanks = {.own = c->own, .before = NONE, .position = c->position};
    size_t size = expand(request, head, &blanks);
    int more = snprintf(line, sizeof line,
                        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %s\r\n"
                        "Sec-WebSocket-Version: 13\r\n%s\r\n", KEY, compressed ? OFFER : "");
    memcpy(request + size, line, (size_t)more);
    c->fd = connected(ws_port);
    c->state = SHAKING;
    shaking++;
    if ((c->words = (uint32_t)greetings)) waiting++;
    watch(c->fd, (uint32_t)(c - clients));
    send_all(c->fd, request, size + (size_t)more);
}

/* Connect one more client. It is known by the number of its own topic, also before it subscribes. */
void connect_one(enum kind kind, uint32_t own) {
    struct client *c = &clients[count++];
    memset(c, 0, sizeof *c);
    c->own = own;
    c->before = NONE;
    c->next = published;
    shake(c, heads[kind].size ? heads[kind] : heads[TOPIC]);
}

/* Whether clients that come back say where they were. */
int resumes(void) { return has_blank(back_head, "^^^^^^") || has_blank(back, "^^^^^^"); }

/* Cut the connection of a client that hears the topic of all and nothing else: the server is not told. */
void cut_one(struct client *c) {
    if (c->words) waiting--;
    hang_up(c);
    c->state = CLOSED;
    c->coming = AWAY;
    c->words = 0;
    c->subscribed = c->told = 0;
    c->away_from = published;
    c->away_to = UINT64_MAX;
    hearing--;
    coming_back++;
}

void return_one(struct client *c) {
    c->coming = GREETING;
    shake(c, back_head.size ? back_head : heads[TOPIC]);
}

/* One that comes back has what it was waiting for: it says what it wants and where it was, and then is there. */
void come_further(struct client *c) {
    struct bytes words = back.size ? back : firsts[TOPIC];
    if (c->coming == GREETING && words.size) {
        c->coming = RESUMING;
        c->subscribed = 1;
        say(c, words, back.size ? back_replies : replies);
        return;
    }
    c->coming = HERE;
    c->subscribed = 1;
    c->away_to = published;
    hearing++;
    coming_back--;
}

/* Have a client say which topics it wants, where that takes words. */
void subscribe_one(struct client *c, enum kind kind, uint32_t own) {
    c->subscribed = 1;
    c->hears = kind != IDLE;
    c->own = kind == TOPIC ? NONE : own;
    if (c->hears) hearing++;
    if (kind == OWN && own < MAX_CLIENTS) members[own]++;
    if (firsts[kind].size) say(c, firsts[kind], replies);
}
