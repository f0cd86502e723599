/*
 * What a long run has found so far, beside its output, so that an interrupted one can go on: a folder of pieces, each complete or not
 * there. Knows nothing of what the pieces mean.
 */
#ifndef QUANTIZE_WORK_H
#define QUANTIZE_WORK_H

#include <stddef.h>

#include "base/os.h"
#include "dilmodeli.h"

typedef struct work work;

/*
 * The folder out_path + ".work". key says what the run depends on: pieces of another key are never used. resume: those of the same key are
 * kept, BAD_ARGUMENT when there are some of another one; else what a run has left there is removed. IO: the folder holds something else, or
 * another process works there. [owned: work_close]
 */
DIL_MUST_CHECK dil_status work_open(work **out, const char *out_path, uint64_t key, bool resume, dil_error *err);
/* For this call alone, beside whatever else there is of the same output: nothing to go on with. Close it as done. */
DIL_MUST_CHECK dil_status work_open_passing(work **out, const char *out_path, const char *what, dil_error *err);
/* done: the folder is removed, as it is when it holds no piece. NULL is allowed. */
void work_close(work *w, bool done);

/* false: the piece is not there, or not as it was saved. */
bool work_load(const work *w, const char *name, void *bytes, size_t n);
DIL_MUST_CHECK dil_status work_save(work *w, const char *name, const void *bytes, size_t n, dil_error *err);
/* Where a file of the run may stand. */
void work_path(const work *w, const char *name, char *out, size_t n);

uint64_t work_hash(const void *bytes, size_t n, uint64_t seed);
/* Of a file's size, time and place on disk. */
uint64_t work_hash_file(const os_file *f, uint64_t seed);
/* Its name too. NULL, or one that cannot be opened (which is found out where it is read): the seed. */
uint64_t work_hash_path(const char *path, uint64_t seed);

#endif
