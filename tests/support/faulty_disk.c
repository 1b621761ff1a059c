/* A disk that fails: below one folder, the n-th write (or every write from the n-th on) ends in an
 * error. Preloaded into a process, it reaches what Python cannot patch, SQLite's own writes too.
 * A write is whatever may take room: making a file, a folder or a link, renaming, writing, growing,
 * flushing. Reading and removing always work. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char root[PATH_MAX];
static long writes, fails_at;
static int code, sticky;
char failed_call[64], failed_path[PATH_MAX]; /* the first write that was refused */

/* From now on; number 0: nothing fails, writes are counted. */
void disk_fails(const char *folder, long number, int error, int is_sticky) {
    strncpy(root, folder, sizeof root - 1);
    writes = 0, fails_at = number, code = error, sticky = is_sticky;
    failed_call[0] = failed_path[0] = 0;
}

long disk_writes(void) { return writes; }

static int refused(const char *call, const char *path) {
    if (!root[0] || !path || strncmp(path, root, strlen(root))) return 0;
    writes++;
    if (!fails_at || writes < fails_at || (!sticky && writes > fails_at)) return 0;
    if (!failed_call[0]) {
        strncpy(failed_call, call, sizeof failed_call - 1);
        strncpy(failed_path, path, sizeof failed_path - 1);
    }
    errno = code;
    return 1;
}

static int refused_fd(const char *call, int fd) {
    char link[64], path[PATH_MAX];
    if (!root[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return refused(call, path);
}

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                       \
    int name(const char *path, int flags, ...) {                         \
        va_list rest;                                                    \
        va_start(rest, flags);                                           \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;        \
        va_end(rest);                                                    \
        if (flags & O_CREAT && access(path, F_OK) && refused("open", path)) return -1; \
        return REAL(name)(path, flags, mode);                            \
    }
OPEN(open)
OPEN(open64)

#define PATHS(name, target, declared, given)                             \
    int name declared {                                                  \
        if (refused(#name, target)) return -1;                           \
        return REAL(name) given;                                         \
    }
PATHS(mkdir, path, (const char *path, mode_t mode), (path, mode))
PATHS(rename, to, (const char *from, const char *to), (from, to))
PATHS(link, to, (const char *from, const char *to), (from, to))
PATHS(linkat, to, (int a, const char *from, int b, const char *to, int flags),
      (a, from, b, to, flags))

#define DESCRIPTORS(kind, name, declared, given)                         \
    kind name declared {                                                 \
        if (refused_fd(#name, fd)) return -1;                            \
        return REAL(name) given;                                         \
    }
DESCRIPTORS(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
DESCRIPTORS(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
DESCRIPTORS(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at),
            (fd, data, size, at))
DESCRIPTORS(ssize_t, sendfile, (int fd, int from, off_t *at, size_t size), (fd, from, at, size))
DESCRIPTORS(ssize_t, sendfile64, (int fd, int from, off64_t *at, size_t size), (fd, from, at, size))
DESCRIPTORS(int, fsync, (int fd), (fd))
DESCRIPTORS(int, fdatasync, (int fd), (fd))
