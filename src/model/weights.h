/* Binding: the file's tensors -> the roles of model.h, every shape checked; then packing. Private to the model module. */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "model/model.h"

/* model.c: all of an opened file (m->file, m->memory are set) but the packing; IO when it was truncated meanwhile. */
DIL_MUST_CHECK dil_status model_read(model *m, const model_options *options, dil_error *err);
DIL_MUST_CHECK dil_status weights_bind(model *m, dil_error *err);
/* Bytes every panel needs; fills panel_bytes and n_panels of each weight. */
DIL_MUST_CHECK dil_status weights_size(model *m, dil_error *err);
DIL_MUST_CHECK dil_status weights_pack(model *m, const model_options *options, dil_error *err);

#endif
