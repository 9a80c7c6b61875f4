/* The events' texts, and what the command line has of the servers' languages. */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIGITS = 6, FIRST_NUMBER = 100000, LEAST_JOB_EVENT = 300 };

int text_size = 300; /* bytes of an event's text; the most bytes where the texts are job events */
int repeats = 1; /* how often what stands between <<< and >>> is repeated */
int job_events;  /* texts like Tower's job events, of many sizes, instead of one like the other */
static char *texts;

/* Undo \\ and \xHH. */
struct bytes unescaped(const char *text) {
    struct bytes b = {malloc(strlen(text) + 1), 0};
    for (; *text; text++) {
        char byte = *text;
        if (byte == '\\' && text[1] == '\\') {
            text++;
        } else if (byte == '\\' && text[1] == 'x') {
            char hex[3] = {text[2], text[2] ? text[3] : 0, 0};
            byte = (char)strtol(hex, NULL, 16);
            text += 3;
        }
        b.at[b.size++] = byte;
    }
    return b;
}

static size_t digits(char *out, uint32_t number) {
    char text[16];
    snprintf(text, sizeof text, "%06u", number);
    memcpy(out, text, DIGITS);
    return DIGITS;
}

/* Write what stands for a blank. Returns its length. */
static size_t fill_blank(char *out, char blank, const struct blanks *blanks) {
    const char *position = blanks->position ? blanks->position : "";
    switch (blank) {
    case '@': return digits(out, FIRST_NUMBER + blanks->own);
    case '&': return digits(out, FIRST_NUMBER + blanks->before);
    case '#': return digits(out, (uint32_t)blanks->length);
    default: memcpy(out, position, strlen(position)); return strlen(position);
    }
}

static size_t fill(char *out, const char *from, size_t size, const struct blanks *blanks) {
    static const char *const kinds[] = {"@@@@@@", "&&&&&&", "######", "^^^^^^"};
    size_t done = 0, kind;
    for (const char *end = from + size; from < end;) {
        for (kind = 0; kind < 4 && (end - from < DIGITS || memcmp(from, kinds[kind], DIGITS)); kind++) continue;
        if (kind < 4) {
            done += fill_blank(out + done, *from, blanks);
            from += DIGITS;
        } else {
            out[done++] = *from++;
        }
    }
    return done;
}

/* Write the bytes with their blanks filled. Returns how many there are. */
size_t expand(char *out, struct bytes from, const struct blanks *blanks) {
    const char *end = from.at + from.size, *open = memmem(from.at, from.size, "<<<", 3), *close;
    struct blanks further = *blanks;
    size_t done;
    if (!open || !(close = memmem(open, (size_t)(end - open), ">>>", 3))) return fill(out, from.at, from.size, blanks);
    done = fill(out, from.at, (size_t)(open - from.at), blanks);
    for (int i = 1; i < repeats; i++) {
        further.own++;
        done += fill(out + done, open + 3, (size_t)(close - open - 3), &further);
        if (done > MOST_MESSAGE / 2) die("a message with too many topics");
    }
    return done + fill(out + done, close + 3, (size_t)(end - close - 3), blanks);
}

int has_blank(struct bytes from, const char *blank) { return memmem(from.at, from.size, blank, DIGITS) != NULL; }

static uint32_t spread(uint64_t number) { return (uint32_t)(number * 2654435761u + 1); }

/* Bytes of an event's text. */
size_t text_length(uint64_t number) {
    if (!job_events) return (size_t)text_size;
    return LEAST_JOB_EVENT + spread(number) % (uint32_t)(text_size - LEAST_JOB_EVENT + 1);
}

/* An event as Tower makes them of a run of Ansible: what it says of itself, and as much output as fits in. */
static void write_job_event(char *text, uint64_t number) {
    static const char *const modules[] = {"apt", "template", "service", "copy", "user", "file", "command", "lineinfile"};
    size_t size = text_length(number), at;
    uint32_t x = spread(number), host = x >> 8 & 255;
    char line[128];
    at = (size_t)sprintf(text, "{\"seq\":\"%010llu\",\"group_name\":\"job_events\",\"job\":%u,\"event\":\"runner_on_ok\","
                         "\"counter\":%llu,\"uuid\":\"%08x-0242-ac11-0002-%012x\",\"task\":\"Set up the web server\","
                         "\"task_action\":\"%s\",\"host\":\"web-%03u.example.org\",\"stdout\":\"",
                         (unsigned long long)number, x & 1023, (unsigned long long)number, x, x ^ 0x5bd1e995u,
                         modules[x >> 16 & 7], host);
    for (int item = 0;; item++) {
        x = x * 1664525u + 1013904223u;
        int more = snprintf(line, sizeof line, "ok: [web-%03u.example.org] => (item=%s-%u) {\\\"changed\\\": %s}\\r\\n", host,
                            modules[x >> 20 & 7], x >> 24, x & 1 << 18 ? "true" : "false");
        if (at + (size_t)more + 2 > size) break;
        memcpy(text + at, line, (size_t)more);
        at += (size_t)more;
    }
    memset(text + at, '.', size - 2 - at);
    memcpy(text + size - 2, "\"}", 2);
}

static void write_text(char *text, uint64_t number) {
    uint32_t x = spread(number);
    int at;
    if (job_events) {
        write_job_event(text, number);
        return;
    }
    at = sprintf(text, "{\"seq\":\"%010llu\",\"pad\":\"", (unsigned long long)number);
    for (; at < text_size - 2; at++) {
        x = x * 1664525u + 1013904223u;
        text[at] = "abcdefghijklmnopqrstuvwxyz012345"[x >> 27];
    }
    memcpy(text + text_size - 2, "\"}", 2);
}

static char *place(uint64_t number) { return texts + number % WINDOW * ((size_t)text_size + 1); }

void make_texts(void) {
    if (job_events && text_size < LEAST_JOB_EVENT) die("--size");
    if (!(texts = calloc(WINDOW, (size_t)text_size + 1))) die("memory");
}

/* The text of an event: `text_length` bytes of JSON whose every byte follows from the number. It is kept for a while. */
char *make_text(uint64_t number) {
    write_text(place(number), number);
    return place(number);
}

int text_differs(const char *text, uint64_t number) {
    static char wanted[MOST_SIZE + 64];
    size_t size = text_length(number);
    if (!memcmp(text, place(number), size)) return 0;
    write_text(wanted, number); /* it may be an old one */
    return memcmp(text, wanted, size) != 0;
}
