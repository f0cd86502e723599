/* Logits of every position as a NumPy array, for comparisons outside. */
#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "base/status.h"
#include "evaluate/evaluate.h"

typedef struct npy_run {
    os_writer *w;
    size_t row_bytes;
    dil_status status;
    dil_error *err;
} npy_run;

static bool write_row(void *ctx, int32_t i, const float *logits)
{
    npy_run *r = ctx;
    (void)i;
    r->status = os_writer_write(r->w, logits, r->row_bytes, r->err);
    return r->status == DIL_OK;
}

/* .npy version 1.0: magic, header length, a Python dictionary padded to a multiple of 64 bytes. */
static dil_status write_npy_header(os_writer *w, int32_t rows, int32_t cols, dil_error *err)
{
    char head[128];
    memset(head, ' ', sizeof head);
    memcpy(head, "\x93NUMPY\x01\x00", 8);
    head[8] = (char)(sizeof head - 10);
    head[9] = 0;
    int n = snprintf(head + 10, sizeof head - 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", rows, cols);
    head[10 + n] = ' ';
    head[sizeof head - 1] = '\n';
    return os_writer_write(w, head, sizeof head, err);
}

static dil_status write_rows(engine *e, session *s, const token_id *tokens, int32_t n, os_writer *w, dil_error *err)
{
    npy_run run = {w, (size_t)engine_n_vocab(e) * sizeof(float), DIL_OK, err};
    DIL_TRY(write_npy_header(w, n, engine_n_vocab(e), err));
    DIL_TRY(session_eval(s, tokens, n, NULL, write_row, &run, err));
    DIL_TRY(run.status);
    return os_writer_commit(w, err);
}

dil_status evaluate_logits(engine *e, const token_id *tokens, int32_t n, const char *npy_path, dil_error *err)
{
    session *s;
    os_writer w;
    DIL_TRY(session_new(&s, e, err));
    dil_status status = os_writer_open(&w, npy_path, err);
    if (status == DIL_OK) {
        status = write_rows(e, s, tokens, n, &w, err);
        os_writer_abort(&w);
    }
    session_free(s);
    return status;
}
