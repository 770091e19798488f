#include "calls.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct mapping mapping;
int references;

static int audit_file = -1;

void open_audit(void) {
    char path[600];
    if (audit_file >= 0) close(audit_file);
    snprintf(path, sizeof path, "%s.audit", mapping.path);
    audit_file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static void audit(const char *name, const char *arguments, int code) {
    char line[400];
    const int length = snprintf(line, sizeof line, "%d %s(%s) = %d\n", getpid(), name, arguments, code);
    if (write(audit_file, line, (size_t)length) != length) abort();
}

static void apply_faults(struct call *call, enum effect effect) {
    for (int i = 0; i < mapping.state->n_faults; i++) {
        struct fault *fault = &mapping.state->faults[i];
        const int any = strcmp(fault->call, "*") == 0 || (strcmp(fault->call, "change") == 0 && effect != READS);
        if (!any && strcmp(fault->call, call->name) != 0) continue;
        fault->seen++;
        if (fault->nth && fault->seen != fault->nth) continue;
        switch (fault->action) {
        case FAIL: call->code = fault->code; break;
        case HANG: unlock_state(&mapping); for (;;) pause();
        case CRASH_BEFORE: raise(SIGKILL); break;
        case CRASH_AFTER: call->crash = 1; break;
        }
    }
}

struct call begin(const char *name, enum effect effect) {
    struct call call = {name, OK, 0};
    if (!references) {
        call.code = UNINITIALIZED;
        return call;
    }
    if (effect == CREATES) usleep(1000 * mapping.state->create_ms);
    if (effect == DESTROYS) usleep(1000 * mapping.state->destroy_ms);
    lock_state(&mapping);
    apply_faults(&call, effect);
    if (call.code == OK && !mapping.state->loaded) call.code = DRIVER_NOT_LOADED;
    if (call.code == OK && effect != READS && mapping.state->denied & DENY_CHANGES) call.code = NO_PERMISSION;
    return call;
}

int end(const struct call *call, const char *format, ...) {
    if (!references) return call->code;
    char arguments[200];
    va_list values;
    va_start(values, format);
    vsnprintf(arguments, sizeof arguments, format, values);
    va_end(values);
    audit(call->name, arguments, call->code);
    if (call->crash) raise(SIGKILL);
    unlock_state(&mapping);
    return call->code;
}

/* --- handles ------------------------------------------------------------------------------------------------------ */

void *handle_of(enum kind kind, uint64_t number) {
    return (void *)((uintptr_t)kind << 56 | (uintptr_t)number);
}

int is(enum kind kind, const void *handle) {
    return (uintptr_t)handle >> 56 == kind;
}

uint64_t number_of(const void *handle) {
    return (uintptr_t)handle & (((uintptr_t)1 << 56) - 1);
}

int index_of(const struct board *board) {
    return board ? (int)(board - mapping.state->boards) : -1;
}

struct board *board_of(const void *handle) {
    const uint64_t number = number_of(handle);
    return is(DEVICE, handle) && number < (uint64_t)mapping.state->n_boards ? &mapping.state->boards[number] : 0;
}

struct found find(const void *handle) {
    const int ci = is(CI, handle) || is(MIG_DEVICE, handle);
    if (!ci && !is(GI, handle)) return (struct found){0, 0, 0};
    for (int b = 0; b < mapping.state->n_boards; b++)
        for (int g = 0; g < MAX_GIS; g++) {
            struct gi *gi = &mapping.state->boards[b].gi[g];
            if (!gi->serial) continue;
            if (!ci && gi->serial == number_of(handle)) return (struct found){&mapping.state->boards[b], gi, 0};
            for (int c = 0; ci && c < MAX_CIS; c++)
                if (gi->ci[c].serial == number_of(handle) && gi->ci[c].serial)
                    return (struct found){&mapping.state->boards[b], gi, &gi->ci[c]};
        }
    return (struct found){0, 0, 0};
}

struct found found_by(const struct call *call, const void *handle) {
    return call->code == OK ? find(handle) : (struct found){0, 0, 0};
}

int needs_mig(const struct board *board) {
    if (!board) return INVALID_ARGUMENT;
    return MODELS[board->model].geometry && board->current ? OK : NOT_SUPPORTED;
}
