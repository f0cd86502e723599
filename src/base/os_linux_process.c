/* Linux: a command line run by the shell, with what it writes collected. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "base/str.h"

extern char **environ;

/* The shell with the ends the parent does not read as its output. */
static dil_status start(const char *command, const int out[2], const int error[2], pid_t *pid, dil_error *err)
{
    posix_spawn_file_actions_t actions;
    char text[32768], shell[] = "/bin/sh", option[] = "-c";
    if (strlen(command) >= sizeof text)
        return DIL_FAIL(err, DIL_LIMIT, "command: wanted less than %zu bytes, found %zu", sizeof text, strlen(command));
    memcpy(text, command, strlen(command) + 1);
    char *argv[] = {shell, option, text, NULL};
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, error[1], STDERR_FILENO);
    int failed = posix_spawn(pid, shell, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return failed ? DIL_FAIL(err, DIL_IO, "cannot run %s: %s", shell, os_error_text(failed)) : DIL_OK;
}

/* The last bytes of what comes are kept. */
static void keep_tail(char *tail, size_t size, const char *bytes, size_t n)
{
    size_t used = strlen(tail);
    if (n >= size) {
        bytes += n - (size - 1);
        n = size - 1;
    }
    if (used + n >= size) {
        size_t drop = used + n - (size - 1);
        memmove(tail, tail + drop, used - drop);
        used -= drop;
    }
    memcpy(tail + used, bytes, n);
    tail[used + n] = '\0';
}

/* Reads both pipes until the child has closed them. */
static void collect(int out, int error, strbuf *text, char *tail, size_t tail_size)
{
    struct pollfd pipes[2] = {{.fd = out, .events = POLLIN}, {.fd = error, .events = POLLIN}};
    while (pipes[0].fd >= 0 || pipes[1].fd >= 0) {
        if (poll(pipes, 2, -1) < 0 && errno != EINTR)
            return;
        for (int i = 0; i < 2; i++) {
            char bytes[4096];
            if (pipes[i].fd < 0 || !pipes[i].revents)
                continue;
            ssize_t n = read(pipes[i].fd, bytes, sizeof bytes);
            pipes[i].revents = 0;
            if (n == 0 || (n < 0 && errno != EINTR))
                pipes[i].fd = -1; /* poll passes it over */
            if (n > 0 && i == 0)
                strbuf_add(text, bytes, (size_t)n);
            if (n > 0 && i == 1)
                keep_tail(tail, tail_size, bytes, (size_t)n);
        }
    }
}

static dil_status wait_for(pid_t pid, int *exit_code, dil_error *err)
{
    int state;
    while (waitpid(pid, &state, 0) < 0)
        if (errno != EINTR)
            return DIL_FAIL(err, DIL_IO, "lost track of the command: %s", os_error_text(errno));
    *exit_code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
    return DIL_OK;
}

static void close_pipe(int pipe_ends[2])
{
    for (int i = 0; i < 2; i++)
        if (pipe_ends[i] >= 0)
            close(pipe_ends[i]);
}

dil_status os_capture(const char *command, size_t max_bytes, char **out, char *errors, size_t errors_size, int *exit_code,
                      dil_error *err)
{
    int from_out[2] = {-1, -1}, from_error[2] = {-1, -1};
    strbuf text = STRBUF(max_bytes);
    pid_t pid;
    errors[0] = '\0';
    if (os_should_fail() || pipe2(from_out, O_CLOEXEC) != 0 || pipe2(from_error, O_CLOEXEC) != 0) {
        close_pipe(from_out);
        return DIL_FAIL(err, DIL_IO, "command: the system gave no pipe");
    }
    dil_status status = start(command, from_out, from_error, &pid, err);
    close(from_out[1]);
    close(from_error[1]);
    from_out[1] = from_error[1] = -1;
    if (status == DIL_OK) {
        strbuf_add(&text, "", 0);
        collect(from_out[0], from_error[0], &text, errors, errors_size);
        status = wait_for(pid, exit_code, err);
    }
    close_pipe(from_out);
    close_pipe(from_error);
    if (status == DIL_OK && text.failed)
        status = DIL_FAIL(err, DIL_LIMIT, "command: wrote more than %zu bytes, or there is no memory for them", max_bytes);
    if (status == DIL_OK)
        *out = text.p;
    else
        strbuf_free(&text);
    return status;
}
