#include "evaluate/report_json.h"

#include <math.h>

#include "base/os.h"
#include "base/status.h"

json_t *report_number(double v) { return isfinite(v) ? json_real(v) : json_null(); }
json_t *report_count(uint64_t v) { return json_integer((json_int_t)v); }

json_t *report_text(str s)
{
    json_t *whole = json_stringn(s.p, s.n);
    if (whole)
        return whole;
    strbuf plain = STRBUF(s.n + 1);
    for (size_t i = 0; i < s.n; i++)
        strbuf_printf(&plain, "%c", (unsigned char)s.p[i] < 0x80 ? s.p[i] : '?');
    whole = json_string(plain.p ? plain.p : "");
    strbuf_free(&plain);
    return whole;
}

static int write_piece(const char *bytes, size_t n, void *writer)
{
    dil_error ignored;
    return os_writer_write(writer, bytes, n, &ignored) == DIL_OK ? 0 : -1;
}

dil_status report_write(const char *path, json_t *report, dil_error *err)
{
    os_writer w;
    DIL_TRY(os_writer_open(&w, path, err));
    if (report && json_dump_callback(report, write_piece, &w, REPORT_FLAGS) == 0)
        return os_writer_commit(&w, err);
    os_writer_abort(&w);
    return DIL_FAIL(err, DIL_IO, "%s: the report could not be written", path);
}
