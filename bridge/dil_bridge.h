/*
 * The C side of bridge/: chat templates rendered by minijinja, the way Hugging Face's transformers
 * sets Jinja2 up. Templates are untrusted: work is bounded by fuel and time, output and memory by a
 * maximum, recursion by a depth, and a panic inside is caught and reported. The work runs on a
 * thread of its own with a deep stack. Functions may be called from any thread; a template may be
 * rendered by several at once. strftime_now is called from that other thread.
 */
#ifndef DIL_BRIDGE_H
#define DIL_BRIDGE_H

#include <stddef.h>
#include <stdint.h>

typedef enum dil_bridge_status {
    DIL_BRIDGE_OK = 0,
    DIL_BRIDGE_SYNTAX = 1,   /* the template does not parse */
    DIL_BRIDGE_RENDER = 2,   /* the template failed, or called raise_exception */
    DIL_BRIDGE_LIMIT = 3,    /* fuel, output, memory or time ran out */
    DIL_BRIDGE_BAD_JSON = 4, /* messages, tools or extra are not what they should be */
    DIL_BRIDGE_WRITE = 5,    /* the caller's write function failed */
    DIL_BRIDGE_PANIC = 6     /* a defect inside; the template must not be used again */
} dil_bridge_status;

/* Borrowed UTF-8; p == NULL: not given. */
typedef struct dil_bridge_text { const char *p; size_t n; } dil_bridge_text;

typedef struct dil_bridge_template dil_bridge_template;

typedef struct dil_bridge_request {
    dil_bridge_text messages_json; /* array */
    dil_bridge_text tools_json;    /* array, or not given: tools is none */
    dil_bridge_text extra_json;    /* object of further variables, or not given */
    dil_bridge_text bos, eos;      /* bos_token and eos_token; not given: undefined */
    int32_t add_generation_prompt;
    uint64_t fuel;                 /* one unit: an instruction or 64 bytes of text made */
    uint64_t max_output_bytes;
    uint64_t timeout_ms;           /* after it the work is given up, and so is the template */
    /* Receives the text, once, when all of it is there; returns 0 when it was stored. */
    int32_t (*write)(void *ctx, const char *bytes, size_t n);
    void *write_ctx;
    /* strftime of the local time into out, NUL-terminated; its length, 0 when it does not fit. */
    size_t (*strftime_now)(const char *format, char *out, size_t n);
} dil_bridge_request;

/* err: at least 1 byte; receives a NUL-terminated text on failure.
 * [owned: free with dil_bridge_template_free] */
int32_t dil_bridge_template_new(dil_bridge_template **out, const char *source, size_t n, char *err,
                                size_t err_size);
int32_t dil_bridge_template_render(const dil_bridge_template *t, const dil_bridge_request *request,
                                   char *err, size_t err_size);
void dil_bridge_template_free(dil_bridge_template *t);

#endif
