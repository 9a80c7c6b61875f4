/* The account of a run: who must get which event, and who has got it. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_TEXT = 20 }; /* bytes: shorter ones have no number */
static const double AFTERMATH = 0.1; /* seconds after a run in which nothing more may come */

uint64_t published, run_from;
static uint64_t stalled_from;
long left;           /* deliveries that are still due */
long under_way;      /* events that not all who must have got */
long answers_left;   /* answers to the publisher's requests that are still due */
long gone, damaged, strays;
long wire; /* bytes of all messages to clients, as they came */
uint32_t members[MAX_CLIENTS]; /* how many clients have this topic as their own; by its number */
static long deliveries, due, repeated, disordered;
static double *took;           /* milliseconds of each step, in a run's end in ascending order */
static long steps_room;
static int by_event;           /* a step is an event, until the last client has it */
static uint32_t topic_of[WINDOW];
static long wanting[WINDOW];   /* clients that do not yet have the event */
static double begun_at[WINDOW];
static double started;

static uint32_t topic(uint64_t number) { return number + WINDOW > published ? topic_of[number % WINDOW] : ALL; }

static int is_stray(const struct client *c, uint64_t number) {
    uint32_t its = topic(number);
    if (number >= published || number < (c->stalled ? stalled_from : run_from)) return 1;
    return its == ALL ? !c->hears : its != c->own && (its != c->before || !c->words);
}

static void delivered(struct client *c, uint64_t number) {
    size_t at = number % WINDOW;
    if (c->stalled) {
        c->behind++;
        return;
    }
    if (number >= c->away_from && number < c->away_to && !resumes()) return; /* it was not owed to it */
    deliveries++;
    left--;
    if (topic_of[at] != ALL && c->due) c->due--;
    if (--wanting[at]) return;
    under_way--;
    if (by_event && number - run_from < (uint64_t)steps_room) took[number - run_from] = (now() - begun_at[at]) * 1000;
}

/* Note that an event has come. */
static void note(struct client *c, uint64_t number) {
    uint64_t *word = &c->seen[number % WINDOW / 64], bit = 1ull << (number % 64);
    if (is_stray(c, number)) {
        strays++;
        return;
    }
    if (number + WINDOW <= c->next || (number < c->next && *word & bit)) {
        repeated++;
        return;
    }
    if (number < c->next) disordered++;
    for (; c->next <= number; c->next++) c->seen[c->next % WINDOW / 64] &= ~(1ull << (c->next % 64));
    *word |= bit;
    delivered(c, number);
}

void take_event(struct client *c, const char *text, size_t size) {
    uint64_t number = size > LEAST_TEXT ? strtoull(text + 8, NULL, 10) : 0;
    int whole = size > LEAST_TEXT && size == text_length(number);
    if (!whole || text_differs(text, number)) damaged++;
    if (whole) note(c, number);
}

void take_word(struct client *c) {
    if (!c->words) {
        strays++;
    } else if (!--c->words) {
        waiting--;
        if (c->coming) come_further(c);
    }
}

/* The next event, whose number is `published`, goes out: so many clients must get it. */
void event_begins(uint32_t its, long takers, double moment) {
    size_t at = published++ % WINDOW;
    topic_of[at] = its;
    wanting[at] = takers;
    begun_at[at] = moment;
    left += takers;
    due += takers;
    if (takers) under_way++;
}

/* Begin an account; the milliseconds of so many steps are kept. */
void begin_run(long most, int each_event) {
    deliveries = due = repeated = disordered = damaged = strays = refused = wire = 0;
    left = under_way = answers_left = 0;
    run_from = published;
    steps_room = most;
    by_event = each_event;
    took = calloc((size_t)most + 1, sizeof *took);
    started = now();
    open_publisher();
}

void note_step(long step, double ms) {
    if (step < steps_room) took[step] = ms;
}

static void settle(void) {
    double end = now() + AFTERMATH;
    while (now() < end) turn(AFTERMATH);
    for (int i = 0; i < count; i++) {
        if (clients[i].state != CLOSED && !clients[i].stalled) clients[i].next = published;
    }
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Count what is missing, and answer. */
void end_run(long planned, long steps, const char *more) {
    double seconds = now() - started;
    settle();
    if (steps > steps_room) steps = steps_room;
    qsort(took, (size_t)steps, sizeof *took, ascending);
    printf("{\"planned\": %ld, \"events\": %ld, \"deliveries\": %ld, \"lost\": %ld, \"repeated\": %ld, \"disordered\": %ld, "
           "\"damaged\": %ld, \"strays\": %ld, \"gone\": %ld, \"refused\": %d, \"wire\": %ld, \"seconds\": %.3f, \"p50_ms\": %.3f, "
           "\"p99_ms\": %.3f%s}\n",
           planned, (long)(published - run_from), deliveries, due - deliveries, repeated, disordered, damaged, strays, gone,
           refused, wire, seconds, took[steps / 2], took[steps * 99 / 100], more);
    left = under_way = answers_left = 0;
    free(took);
    took = NULL;
    steps_room = 0;
}

void stall_begins(void) { stalled_from = published; }

/* How many events there have been since clients stalled. */
long stalled_for(void) { return (long)(published - stalled_from); }

/* How many clients do not have the event yet. */
long still_wanting(uint64_t number) { return wanting[number % WINDOW]; }

/* How many of the events from one on up to another have not come to a client, in this run. */
long never_came(const struct client *c, uint64_t from, uint64_t to) {
    long number = 0;
    for (uint64_t i = from; i < to; i++) number += i >= c->next || !(c->seen[i % WINDOW / 64] & 1ull << (i % 64));
    return number;
}

/* So many deliveries are due no more. */
void forgive(long number) {
    left -= number;
    due -= number;
}
