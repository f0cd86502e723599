#include "base/events.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "base/str.h"

#define MOST_EVENTS ((uint64_t)1 << 24)
#define PIECE_BYTES ((size_t)1 << 16) /* written at a time */

struct events {
    uint64_t capacity, origin_ns;
    long process;
    event_span *ring; /* [capacity]: event i is at i % capacity */
    _Atomic uint64_t n;
};

dil_status events_new(events **out, uint64_t capacity, dil_error *err)
{
    if (capacity < 1 || capacity > MOST_EVENTS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "events: wanted room for 1..%" PRIu64 ", found %" PRIu64, MOST_EVENTS, capacity);
    events *e = mem_calloc(1, sizeof *e, MEM_MISC);
    event_span *ring = e ? mem_map(capacity * sizeof *ring, MEM_MISC) : NULL;
    if (!ring) {
        mem_free(e);
        return DIL_FAIL(err, DIL_NO_MEMORY, "events: no memory for %" PRIu64 " of them", capacity);
    }
    memset(ring, 0, capacity * sizeof *ring); /* now, so that recording does not wait for pages */
    e->capacity = capacity;
    e->ring = ring;
    e->process = os_process_id();
    e->origin_ns = os_time_ns();
    *out = e;
    return DIL_OK;
}

void events_free(events *e)
{
    if (!e)
        return;
    mem_unmap(e->ring, e->capacity * sizeof *e->ring, MEM_MISC);
    mem_free(e);
}

/* Relaxed: whoever writes the file has met the workers at a barrier. */
void events_add(events *e, const event_span *what)
{
    e->ring[atomic_fetch_add_explicit(&e->n, 1, memory_order_relaxed) % e->capacity] = *what;
}

uint64_t events_recorded(const events *e) { return atomic_load_explicit(&e->n, memory_order_relaxed); }

uint64_t events_dropped(const events *e)
{
    uint64_t n = events_recorded(e);
    return n > e->capacity ? n - e->capacity : 0;
}

/* ---- the file ---- */

static void add_head(const events *e, strbuf *b)
{
    strbuf_printf(b,
                  "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"program\":\"dil %s\",\"recorded\":%" PRIu64 ",\"dropped\":%" PRIu64
                  "},\n\"traceEvents\":[\n"
                  "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":%ld,\"tid\":0,\"args\":{\"name\":\"dil\"}}",
                  DIL_VERSION, events_recorded(e), events_dropped(e), e->process);
}

static void add_track(const events *e, strbuf *b, int track)
{
    static const char *const names[] = {"passes", "command"};
    char worker[32];
    (void)snprintf(worker, sizeof worker, "worker %d", track);
    const char *name = track < TEAM_MAX ? worker : names[track - TEAM_MAX];
    int place = track < TEAM_MAX ? track : track - EVENTS_TRACKS; /* above the workers */
    strbuf_printf(b, ",\n{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":%ld,\"tid\":%d,\"args\":{\"name\":\"%s\"}}", e->process,
                  track, name);
    strbuf_printf(b, ",\n{\"name\":\"thread_sort_index\",\"ph\":\"M\",\"pid\":%ld,\"tid\":%d,\"args\":{\"sort_index\":%d}}",
                  e->process, track, place);
}

/* A pass of several rows carries their number in its name: "prefill 512". */
static void add_event(const events *e, strbuf *b, const event_span *v)
{
    static const char *const categories[] = {"pass", "command"};
    uint64_t start = v->start_ns - e->origin_ns, length = v->end_ns - v->start_ns;
    char rows[16] = "";
    if (v->track == EVENTS_PASSES && v->rows > 1)
        (void)snprintf(rows, sizeof rows, " %d", v->rows);
    strbuf_printf(b, ",\n{\"name\":\"%s%s\",\"cat\":\"%s\",\"ph\":\"X\",\"pid\":%ld,\"tid\":%d", v->name, rows,
                  v->track < TEAM_MAX ? "step" : categories[v->track - TEAM_MAX], e->process, v->track);
    strbuf_printf(b, ",\"ts\":%" PRIu64 ".%03u,\"dur\":%" PRIu64 ".%03u,\"args\":{", start / 1000, (unsigned)(start % 1000),
                  length / 1000, (unsigned)(length % 1000));
    if (v->layer >= 0)
        strbuf_printf(b, "\"layer\":%d%s", v->layer, v->rows >= 0 ? "," : "");
    if (v->rows >= 0)
        strbuf_printf(b, "\"rows\":%d", v->rows);
    strbuf_printf(b, "}}");
}

/* Hands on what has gathered in b. */
static dil_status flush(os_writer *w, strbuf *b, dil_error *err)
{
    if (b->failed)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for the text of events", w->path);
    DIL_TRY(os_writer_write(w, b->p, b->n, err));
    strbuf_clear(b);
    return DIL_OK;
}

static dil_status write_all(const events *e, os_writer *w, strbuf *b, dil_error *err)
{
    bool seen[EVENTS_TRACKS] = {false};
    uint64_t n = events_recorded(e);
    for (uint64_t i = events_dropped(e); i < n; i++)
        seen[e->ring[i % e->capacity].track] = true;
    add_head(e, b);
    for (int track = 0; track < EVENTS_TRACKS; track++)
        if (seen[track])
            add_track(e, b, track);
    for (uint64_t i = events_dropped(e); i < n; i++) {
        add_event(e, b, &e->ring[i % e->capacity]);
        if (b->n > PIECE_BYTES)
            DIL_TRY(flush(w, b, err));
    }
    strbuf_printf(b, "\n]}\n");
    return flush(w, b, err);
}

dil_status events_write(const events *e, const char *path, dil_error *err)
{
    os_writer w;
    strbuf b = STRBUF((size_t)1 << 20);
    DIL_TRY(os_writer_open(&w, path, err));
    dil_status status = write_all(e, &w, &b, err);
    strbuf_free(&b);
    if (status == DIL_OK)
        return os_writer_commit(&w, err);
    os_writer_abort(&w);
    return status;
}
