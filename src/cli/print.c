#include "cli/print.h"
#include "base/status.h"
#include "evaluate/report_json.h"

void print_text(FILE *out, str s, size_t most)
{
    for (size_t i = 0; i < s.n && i < most;) {
        uint32_t code;
        int length = utf8_decode(s.p + i, s.n - i, &code);
        if (length == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0))
            fputs(length && code == '\n' ? "\\n" : length && code == '\t' ? "\\t" : "?", out);
        else
            fwrite(s.p + i, 1, (size_t)length, out);
        i += length ? (size_t)length : 1;
    }
    if (s.n > most)
        fprintf(out, "... (%zu bytes)", s.n);
}

void print_cell(FILE *out, const char *text, int columns)
{
    const int taken = (int)utf8_columns(str_of(text));
    fprintf(out, "%s%*s", text, taken < columns ? columns - taken : 0, "");
}

dil_status print_report(json_t *report, dil_error *err)
{
    if (!report || json_dumpf(report, stdout, REPORT_FLAGS) != 0)
        return DIL_FAIL(err, DIL_IO, "the report could not be printed");
    putchar('\n');
    return DIL_OK;
}
