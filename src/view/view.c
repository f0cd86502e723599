#include "view/view.h"

#include "base/os.h"
#include "base/status.h"

view_picture view_find(const char *name)
{
    static const struct {
        const char *name;
        view_picture picture;
    } pictures[] = {
        {"metrics", view_metrics}, {"experts", view_experts}, {"bits", view_bits}, {"flock", view_flock}, {"cache", view_cache}};
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++)
        if (strcmp(pictures[i].name, name) == 0)
            return pictures[i].picture;
    return NULL;
}

dil_status view_format_of(const char *path, view_format *out, dil_error *err)
{
    static const char *const endings[] = {[VIEW_SVG] = ".svg", [VIEW_PNG] = ".png", [VIEW_PDF] = ".pdf", [VIEW_HTML] = ".html"};
    size_t n = strlen(path);
    for (int i = 0; i < (int)(sizeof endings / sizeof *endings); i++) {
        size_t m = strlen(endings[i]);
        if (n > m && str_equal_nocase(path + n - m, endings[i])) {
            *out = (view_format)i;
            return DIL_OK;
        }
    }
    return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted a name that ends in .svg, .png, .pdf or .html", path);
}

dil_status view_head(const char *path, char *out, size_t n, dil_error *err)
{
    os_file f;
    DIL_TRY(os_file_open(&f, path, err));
    memset(out, 0, n);
    dil_status status = f.size_bytes ? os_file_read(&f, 0, out, f.size_bytes < n ? (size_t)f.size_bytes : n, err) : DIL_OK;
    os_file_close(&f);
    return status;
}
