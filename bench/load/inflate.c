/* What servers have compressed (RFC 7692), message by message: none may lean on those before it. */
#include "load.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { KEPT = 4096 };
static const unsigned char TAIL[] = {0, 0, 0xff, 0xff}; /* section 7.2.2 */

/* Many clients get the same bytes. Those that were inflated are kept for a while, and not inflated again. */
static struct kept {
    unsigned char *data, *text;
    size_t size, length;
} kept[KEPT];
static unsigned char text[MOST_MESSAGE];

static struct kept *place(const unsigned char *data, size_t size) {
    uint64_t mixed = size, word;
    for (size_t at = 0; at + 8 <= size; at += 8) {
        memcpy(&word, data + at, 8);
        mixed = (mixed ^ word) * 0x9e3779b97f4a7c15u;
    }
    return &kept[(mixed >> 40) % KEPT];
}

static int feed(z_stream *z, const unsigned char *data, size_t size) {
    int said;
    z->next_in = (unsigned char *)(uintptr_t)data;
    z->avail_in = (unsigned)size;
    said = inflate(z, Z_SYNC_FLUSH);
    return z->avail_in == 0 && (said == Z_OK || said == Z_STREAM_END || said == Z_BUF_ERROR);
}

/* The text of a compressed message, valid until the next one; NULL if it is none. */
const unsigned char *inflated(const unsigned char *data, size_t size, size_t *length) {
    static z_stream z;
    static int ready;
    struct kept *k = place(data, size);
    if (k->data && k->size == size && !memcmp(k->data, data, size)) {
        *length = k->length;
        return k->text;
    }
    if ((ready ? inflateReset(&z) : inflateInit2(&z, -MAX_WBITS)) != Z_OK) die("inflate");
    ready = 1;
    z.next_out = text;
    z.avail_out = sizeof text;
    if (!feed(&z, data, size) || !feed(&z, TAIL, sizeof TAIL) || !z.avail_out) return NULL;
    *length = sizeof text - z.avail_out;
    k->size = size;
    k->length = *length;
    k->data = realloc(k->data, size + 1);
    k->text = realloc(k->text, *length + 1);
    if (!k->data || !k->text) die("memory");
    memcpy(k->data, data, size);
    memcpy(k->text, text, *length);
    return k->text;
}
