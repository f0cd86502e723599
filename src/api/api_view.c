/* Pictures: src/view/ behind the public header. */
#include <string.h>

#include "api/arguments.h"
#include "base/os.h"
#include "view/view.h"

dil_view_options dil_view_options_default(void) { return (dil_view_options){.struct_size = sizeof(dil_view_options), .layer = -1}; }

static dil_status check_word(const char *name, const char *word, const char *first, const char *second, dil_error *err)
{
    if (!word || strcmp(word, first) == 0 || strcmp(word, second) == 0)
        return DIL_OK;
    return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_view: %s: wanted %s or %s, found '%s'", name, first, second, word);
}

static dil_status take_request(view_request *r, const dil_view_options *options, dil_error *err)
{
    dil_view_options o = dil_view_options_default();
    DIL_TRY(take_options(&o, sizeof o, options, options ? options->struct_size : 0, "dil_view_options", err));
    DIL_TRY(check_word("theme", o.theme, "light", "dark", err));
    DIL_TRY(check_word("language", o.language, "en", "tr", err));
    if (o.n_frames < 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_view: n_frames: wanted 0 or more, found %d", o.n_frames);
    *r = (view_request){.dark = o.theme && strcmp(o.theme, "dark") == 0,
                        .any_theme = !o.theme,
                        .turkish = o.language && strcmp(o.language, "tr") == 0,
                        .one_layer = o.layer >= 0,
                        .layer = o.layer >= 0 ? (uint32_t)o.layer : 0,
                        .n_frames = (uint32_t)o.n_frames,
                        .frame = o.frame,
                        .text = o.text,
                        .text_bytes = o.text ? o.text_bytes : 0,
                        .n_threads = o.n_threads,
                        .progress = o.progress,
                        .user = o.user};
    return DIL_OK;
}

dil_status dil_view(const char *kind, const char *const *inputs, size_t n_inputs, const char *out_path,
                    const dil_view_options *options, dil_error *err)
{
    view_request r;
    DIL_TRY(need(kind, "dil_view: kind", err));
    DIL_TRY(need(inputs, "dil_view: inputs", err));
    DIL_TRY(need(out_path, "dil_view: out_path", err));
    DIL_TRY(take_request(&r, options, err));
    const view_picture picture = view_find(kind);
    if (!picture)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_view: kind: wanted flock, bits, metrics, experts or cache, found '%s'", kind);
    if (n_inputs < 1 || n_inputs > VIEW_MOST_INPUTS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_view: inputs: wanted 1..%d, found %zu", VIEW_MOST_INPUTS, n_inputs);
    for (size_t i = 0; i < n_inputs; i++)
        DIL_TRY(need(inputs[i], "dil_view: an input", err));
    r.inputs = inputs;
    r.n_inputs = (int)n_inputs;
    DIL_TRY(view_format_of(out_path, &r.format, err));
    strbuf bytes = STRBUF(VIEW_MOST_BYTES);
    dil_status status = picture(&bytes, &r, err);
    if (status == DIL_OK)
        status = os_write_file(out_path, strbuf_str(&bytes).p, strbuf_str(&bytes).n, err);
    strbuf_free(&bytes);
    return status;
}
