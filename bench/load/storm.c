/* The reconnect storm: all clients lose their connections at once, as behind a load balancer that dies, and come back. */
#include "load.h"

#include <stdio.h>

static const double AWAY_TIME = 0.5; /* seconds from the cut until the first client comes back, at the least */
enum { TOGETHER = 10, MOST_MISSED = WINDOW / 2, MOST_LIVE = WINDOW / 4 };

static const int none = 0;
static long lost_of_told; /* events that did not come to clients that were told so */
static long clients_told;

/* Who must get an event: all where clients come back with their position, elsewhere those that are there. */
static long takers(void) { return resumes() ? hearing + coming_back : hearing; }

static void cut_all(void) {
    for (int i = 0; i < count; i++) {
        if (clients[i].state == OPEN && clients[i].hears && !clients[i].stalled) cut_one(&clients[i]);
    }
}

/* Events go out while nobody is there. */
static void publish_to_nobody(long missed) {
    double until = now() + AWAY_TIME;
    for (long done = 0; done < missed; done++) {
        gather(ALL, takers());
        if (done % TOGETHER < TOGETHER - 1 && done < missed - 1) continue;
        flush();
        until_none(&none, &answers_left);
    }
    for (double rest; (rest = until - now()) > 0.001;) turn(rest);
}

/* Those that were told that events are lost do not wait for them. */
static void hear_the_told(uint64_t missed_to) {
    for (int i = 0; i < count; i++) {
        struct client *c = &clients[i];
        if (c->state != OPEN || c->coming != HERE || c->told != 1) continue;
        long number = never_came(c, c->away_from, missed_to);
        c->told = 2;
        lost_of_told += number;
        clients_told++;
        if (resumes()) forgive(number);
    }
}

/* All come back, so many at once, while events go on. Returns when all are there and have what is theirs. */
static void come_back(int window, double rate, uint64_t missed_to) {
    double start = now(), last = start;
    long live = 0, before = -1;
    int next = 0;
    while (!gone && !refused && now() - last < patience) {
        for (; next < count && shaking + waiting < window; next++) {
            if (clients[next].coming == AWAY) return_one(&clients[next]);
        }
        if (!coming_back && left <= 0) return;
        if (coming_back && live < MOST_LIVE && (double)live < rate * (now() - start)) {
            gather(ALL, takers());
            flush();
            live++;
        }
        turn(0.005);
        hear_the_told(missed_to);
        if (left + coming_back != before) last = now();
        before = left + coming_back;
    }
}

/* One more event for all: what has not come to a client before it will not come. */
static void probe(void) {
    uint64_t number = published;
    double last = now();
    long before = -1;
    gather(ALL, hearing);
    flush();
    while (still_wanting(number) > 0 && !gone && now() - last < patience) {
        turn(0.05);
        if (still_wanting(number) != before) last = now();
        before = still_wanting(number);
    }
}

/* All are cut, MISSED events happen while they are away and RATE a second while they come back, WINDOW at once. */
void storm(long missed, double rate, int window) {
    char more[160];
    long never = 0;
    int cut = hearing;
    uint64_t missed_from;
    double back_at, served;
    if (missed > MOST_MISSED) missed = MOST_MISSED;
    lost_of_told = clients_told = 0;
    begin_run(0, 0);
    missed_from = published;
    cut_all();
    publish_to_nobody(missed);
    back_at = now();
    come_back(window, rate, missed_from + (uint64_t)missed);
    served = now() - back_at;
    probe();
    for (int i = 0; i < count && !resumes(); i++) {
        if (clients[i].state == OPEN && clients[i].hears) never += never_came(&clients[i], missed_from, clients[i].away_to);
    }
    snprintf(more, sizeof more, ", \"cut\": %d, \"back\": %d, \"served_ms\": %.3f, \"missed\": %ld, \"told\": %ld", cut,
             hearing, served * 1000, never + lost_of_told, clients_told);
    end_run((long)(published - run_from), (long)(published - run_from), more);
}
