/* The publisher: one connection on which events go in, several in one write. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOM = 1 << 22 };

int pub_port, batch, refused, publisher = -1;
int pub_frames; /* each event goes in a WebSocket frame */
struct bytes pub_hello;
struct wording to_all, to_own;
static char answer[65536];
static size_t answer_size;

void open_publisher(void) {
    char word[4096];
    if (publisher >= 0) return;
    publisher = connected(pub_port);
    if (pub_hello.size) {
        send_all(publisher, pub_hello.at, pub_hello.size);
        if (recv(publisher, word, sizeof word, 0) <= 0) die("the publisher's hello is not answered");
    }
    watch(publisher, MAX_CLIENTS + 1);
}

/* Where answers follow no requests only complaints are looked for. */
static void take_words(void) {
    if (memcmp(answer, "ERROR", 5) && memcmp(answer, "-ERR", 4)) return;
    if (!refused++) fprintf(stderr, "load: the publisher was refused: %s\n", answer);
}

/* Take the answers to requests: a status and a body whose length is announced. */
void take_answers(void) {
    ssize_t got = recv(publisher, answer + answer_size, sizeof answer - answer_size - 1, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got == 0 && answers_left <= 0) {
        /* A server lets go of one that has been quiet for long; the next run opens another. */
        close(publisher);
        publisher = -1;
        return;
    }
    if (got <= 0) die("the publisher's connection");
    answer_size += (size_t)got;
    answer[answer_size] = 0;
    if (!to_all.head.size) {
        take_words();
        answer_size = 0;
    }
    for (char *end; answer_size && (end = strstr(answer, "\r\n\r\n"));) {
        char *length = strcasestr(answer, "\r\ncontent-length:");
        size_t size = (size_t)(end + 4 - answer) + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
        if (answer_size < size) return;
        if (answer[9] != '2') {
            if (!refused++) fprintf(stderr, "load: the publisher was refused: %.*s\n", (int)size, answer);
        }
        answers_left--;
        answer_size -= size;
        memmove(answer, answer + size, answer_size + 1);
    }
}

/* A text frame whose mask is zeros. */
static size_t add_frame(char *out, const char *body, size_t size) {
    size_t head = size < 126 ? 2 : 4;
    out[0] = (char)0x81;
    out[1] = (char)(0x80 | (size < 126 ? size : 126));
    if (head == 4) {
        out[2] = (char)(size >> 8);
        out[3] = (char)size;
    }
    memset(out + head, 0, 4);
    memcpy(out + head + 4, body, size);
    return head + 4 + size;
}

static size_t add_event(char *out, uint32_t topic) {
    static char body[MOST_MESSAGE];
    struct wording *to = topic == ALL ? &to_all : &to_own;
    struct blanks blanks = {.own = topic, .before = NONE, .length = text_length(published)};
    char *at = pub_frames ? body : out;
    size_t size = expand(at, to->prefix, &blanks);
    memcpy(at + size, make_text(published), blanks.length);
    size += blanks.length;
    size += expand(at + size, to->suffix, &blanks);
    return pub_frames ? add_frame(out, body, size) : size;
}

static size_t add_request(char *out, struct bytes head, uint32_t topic, const char *body, size_t size) {
    struct blanks blanks = {.own = topic, .before = NONE};
    size_t done = expand(out, head, &blanks);
    done += (size_t)sprintf(out + done, "Content-Length: %zu\r\n\r\n", size);
    memcpy(out + done, body, size);
    answers_left++;
    return done + size;
}

/* Publish events in one write: in one request or, where the server knows no batches, in as many. */
void publish(const uint32_t *topics, const long *takers, const double *moments, int number) {
    static char out[ROOM], body[ROOM];
    size_t out_size = 0, size = 0;
    for (int i = 0; i < number; i++) {
        struct bytes head = topics[i] == ALL ? to_all.head : to_own.head;
        if (out_size + size > ROOM / 4) die("too much for one write");
        if (!head.size) {
            out_size += add_event(out + out_size, topics[i]);
        } else {
            size += add_event(body + size, topics[i]);
            if (!batch || i == number - 1) {
                out_size += add_request(out + out_size, head, topics[i], body, size);
                size = 0;
            }
        }
        event_begins(topics[i], takers[i], moments[i]);
    }
    send_all(publisher, out, out_size);
}
