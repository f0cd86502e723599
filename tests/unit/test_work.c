/* What an interrupted run leaves: pieces come back whole or not at all, and never those of another run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/os.h"
#include "quantize/work.h"

static char out_path[64], folder[80];

static void ok(dil_status st, const dil_error *err)
{
    if (st != DIL_OK)
        fail_msg("%s", err->text);
}

static work *opened(uint64_t key, bool resume)
{
    dil_error err;
    work *w = NULL;
    ok(work_open(&w, out_path, key, resume, &err), &err);
    return w;
}

static void damage(const work *w, const char *name, long at)
{
    char path[4096];
    work_path(w, name, path, sizeof path);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    fputc(0x5A, f);
    fclose(f);
}

static void pieces_come_back(void **state)
{
    dil_error err;
    int numbers[100], found[100];
    (void)state;
    for (int i = 0; i < 100; i++)
        numbers[i] = i * i;
    work *w = opened(7, false);
    assert_false(work_load(w, "numbers", found, sizeof found));
    ok(work_save(w, "numbers", numbers, sizeof numbers, &err), &err);
    work_close(w, false);
    w = opened(7, true);
    assert_true(work_load(w, "numbers", found, sizeof found));
    assert_memory_equal(found, numbers, sizeof numbers);
    assert_false(work_load(w, "numbers", found, sizeof found - 4)); /* of another size */
    work_close(w, true);
    assert_false(os_exists(folder));
}

static void damaged_pieces_are_not_there(void **state)
{
    dil_error err;
    int number = 5, found;
    (void)state;
    work *w = opened(7, false);
    for (long at = 0; at < 28; at += 3) {
        ok(work_save(w, "number", &number, sizeof number, &err), &err);
        assert_true(work_load(w, "number", &found, sizeof found));
        damage(w, "number", at);
        assert_false(work_load(w, "number", &found, sizeof found));
    }
    work_close(w, true);
}

static void another_run_is_refused_or_starts_anew(void **state)
{
    dil_error err;
    work *w = NULL;
    int number = 5, found;
    (void)state;
    w = opened(7, false);
    ok(work_save(w, "number", &number, sizeof number, &err), &err);
    work_close(w, false);
    assert_int_equal(work_open(&w, out_path, 8, true, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, folder));
    w = opened(8, false);
    assert_false(work_load(w, "number", &found, sizeof found));
    work_close(w, true);
    w = opened(9, true); /* nothing is there: nothing to go on with, and nothing wrong */
    work_close(w, true);
}

static void write_file(const char *path)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("thesis", f);
    fclose(f);
}

static void only_folders_of_runs_are_touched(void **state)
{
    dil_error err;
    work *w = NULL, *other = NULL;
    char path[128], passing[160];
    (void)state;
    ok(os_make_dirs(folder, &err), &err);
    snprintf(path, sizeof path, "%s/thesis.txt", folder);
    write_file(path);
    for (int resume = 0; resume < 2; resume++) {
        assert_int_equal(work_open(&w, out_path, 7, resume, &err), DIL_IO);
        assert_non_null(strstr(err.text, "something else"));
        assert_true(os_exists(path));
    }
    ok(os_remove(path, &err), &err);
    w = opened(7, true); /* empty: a run that was killed at once may have made it */
    assert_int_equal(work_open(&other, out_path, 7, false, &err), DIL_IO);
    assert_non_null(strstr(err.text, "another run"));
    ok(work_open_passing(&other, out_path, "look", &err), &err);
    work_path(other, "x", passing, sizeof passing);
    assert_null(strstr(passing, folder));
    work_close(other, true);
    assert_true(os_exists(folder));
    work_path(w, "key", path, sizeof path);
    ok(work_save(w, "piece", path, sizeof path, &err), &err);
    work_close(w, false);
    ok(os_remove(path, &err), &err); /* killed before the key was written */
    w = opened(7, true);
    work_close(w, false);
    assert_false(os_exists(folder)); /* nothing to go on with */
    assert_int_equal(work_open(&w, "/no_such_directory/out.gguf", 7, false, &err), DIL_IO);
    assert_false(os_exists("/no_such_directory"));
}

static void failures_of_the_disk_are_errors(void **state)
{
    dil_error err;
    int number = 5, found;
    (void)state;
    work *w = opened(7, false);
    for (int after = 0; after < 40; after++) {
        os_inject_failure(after);
        dil_status status = work_save(w, "number", &number, sizeof number, &err);
        os_inject_failure(-1);
        if (status == DIL_OK)
            break;
        assert_true(err.text[0] != '\0');
        assert_false(work_load(w, "number", &found, sizeof found));
    }
    assert_true(work_load(w, "number", &found, sizeof found));
    work_close(w, true);
}

int main(void)
{
    snprintf(out_path, sizeof out_path, "/tmp/dil_work_%d.gguf", (int)getpid());
    snprintf(folder, sizeof folder, "%s.work", out_path);
    const struct CMUnitTest tests[] = {cmocka_unit_test(pieces_come_back), cmocka_unit_test(damaged_pieces_are_not_there),
                                       cmocka_unit_test(another_run_is_refused_or_starts_anew),
                                       cmocka_unit_test(only_folders_of_runs_are_touched),
                                       cmocka_unit_test(failures_of_the_disk_are_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
