/* What dil view metrics draws beside training logs. */
#ifndef VIEW_METRICS_H
#define VIEW_METRICS_H

#include "view/view.h"

/* Speeds and what bounds them: JSON of dil bench, one or several files. */
DIL_MUST_CHECK dil_status metrics_bench(strbuf *out, const view_request *r, dil_error *err);
/* Size, divergence and convergence: reports of dil quantize. */
DIL_MUST_CHECK dil_status metrics_reports(strbuf *out, const view_request *r, dil_error *err);

#endif
