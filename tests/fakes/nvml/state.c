#include "state.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define ENVIRON_SIZE (1 << 20)

int map_state(struct mapping *mapping, const char *path, int create) {
    mapping->file = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_TRUNC : 0), 0600);
    if (mapping->file < 0) return 0;
    if (create && ftruncate(mapping->file, sizeof(struct state)) != 0) return 0;
    void *memory = mmap(0, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, mapping->file, 0);
    if (memory == MAP_FAILED) return 0;
    mapping->state = memory;
    snprintf(mapping->path, sizeof mapping->path, "%s", path);
    return create || mapping->state->magic == MAGIC;
}

void unmap_state(struct mapping *mapping) {
    munmap(mapping->state, sizeof(struct state));
    close(mapping->file);
    mapping->state = 0;
}

/* The lock on the file excludes other processes, this mutex excludes other threads of the process. */
static pthread_mutex_t threads = PTHREAD_MUTEX_INITIALIZER;

void lock_state(const struct mapping *mapping) {
    pthread_mutex_lock(&threads);
    flock(mapping->file, LOCK_EX);
}

void unlock_state(const struct mapping *mapping) {
    flock(mapping->file, LOCK_UN);
    pthread_mutex_unlock(&threads);
}

uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void new_uuid(const char *prefix, char uuid[UUID_SIZE]) {
    unsigned char b[16];
    if (getrandom(b, sizeof b, 0) != sizeof b) abort();
    snprintf(uuid, UUID_SIZE, "%s-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", prefix, b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static int names_device(const char *environ, size_t length, const char *uuid) {
    static const char variable[] = "CUDA_VISIBLE_DEVICES=";
    for (const char *text = environ; text < environ + length; text += strlen(text) + 1)
        if (strncmp(text, variable, sizeof variable - 1) == 0) return strstr(text, uuid) != 0;
    return 0;
}

static int started_with(const char *process, const char *uuid, char *buffer) {
    char path[300];
    snprintf(path, sizeof path, "/proc/%s/environ", process);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, buffer, ENVIRON_SIZE - 1);
    close(file);
    if (length <= 0) return 0;
    buffer[length] = 0;
    return names_device(buffer, (size_t)length, uuid);
}

unsigned find_holders(const struct state *state, const char *uuid, pid_t *pids, unsigned room) {
    unsigned found = 0;
    for (int i = 0; i < state->n_holders; i++)
        if (strcmp(state->holders[i].uuid, uuid) == 0) {
            if (found < room) pids[found] = state->holders[i].pid;
            found++;
        }
    char *buffer = malloc(ENVIRON_SIZE);
    DIR *processes = opendir("/proc");
    for (struct dirent *entry; processes && (entry = readdir(processes));) {
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9') continue;
        if (!started_with(entry->d_name, uuid, buffer)) continue;
        if (found < room) pids[found] = (pid_t)atoi(entry->d_name);
        found++;
    }
    if (processes) closedir(processes);
    free(buffer);
    return found;
}

const struct shape *shape_of(const struct board *board, unsigned index) {
    return &MODELS[board->model].geometry->shapes[index];
}

/* Applies MIG's rules: intervals of memory slices do not overlap, no profile exceeds its maximum number of instances,
 * and at most one instance is media-exclusive. */
int can_place(const struct board *board, unsigned shape, unsigned start) {
    const struct shape *wanted = shape_of(board, shape);
    unsigned same = 0;
    for (int i = 0; i < MAX_GIS; i++) {
        const struct gi *gi = &board->gi[i];
        if (!gi->serial) continue;
        const struct shape *other = shape_of(board, gi->shape);
        if (start < gi->start + other->memory && gi->start < start + wanted->memory) return 0;
        if (other->media && wanted->media) return 0;
        same += gi->shape == shape;
    }
    return same < wanted->max;
}

struct gi *place_gi(struct state *state, struct board *board, unsigned shape, unsigned start) {
    const unsigned memory = shape_of(board, shape)->memory;
    for (int i = 0; i < MAX_GIS; i++) {
        struct gi *gi = &board->gi[i];
        if (gi->serial) continue;
        memset(gi, 0, sizeof *gi);
        gi->serial = ++state->serial;
        gi->id = memory == 8 ? 0 : memory == 4 ? 1 + start / 4 : memory == 2 ? 3 + start / 2 : 7 + start;
        gi->shape = shape;
        gi->start = start;
        return gi;
    }
    return 0;
}

struct ci *place_ci(struct state *state, struct gi *gi, unsigned profile, unsigned start, unsigned size) {
    for (unsigned i = 0; i < MAX_CIS; i++) {
        struct ci *ci = &gi->ci[i];
        if (ci->serial) continue;
        ci->serial = ++state->serial;
        ci->id = i;
        ci->profile = profile;
        ci->start = start;
        ci->size = size;
        new_uuid("MIG", ci->uuid);
        return ci;
    }
    return 0;
}
