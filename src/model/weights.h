/* Binding: the file's tensors -> the roles of model.h, every shape checked, and where each goes in the packed region (pack.h fills
 * it). Private to the model module. */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "model/model.h"

/* model.c: all of an opened file (m->file, m->memory are set) but the packing; IO when it was truncated meanwhile. */
DIL_MUST_CHECK dil_status model_read(model *m, const model_options *options, dil_error *err);
DIL_MUST_CHECK dil_status weights_bind(model *m, dil_error *err);
/* Bytes every panel needs and where it will be; fills m->packing, and panel_bytes, n_panels and packed_offset of each weight. */
DIL_MUST_CHECK dil_status weights_size(model *m, dil_error *err);
/* The first m->resident_bytes of the region are there: every weight in them learns where its panels are. */
void weights_place(model *m, const uint8_t *region);

static inline size_t weight_bytes(const weight *w) { return w->panel_bytes * (size_t)w->n_panels; }
static inline size_t weight_row_bytes(const weight *w)
{
    return (size_t)(w->tensor->size_bytes / (w->tensor->ne[1] * w->tensor->ne[2]));
}

#endif
