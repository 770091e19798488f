/* A stand-in for libnvidia-ml.so.1: the part of NVML that reads and changes MIG, for simulated GPUs in a file.
 *
 * NVML_STANDIN contains the path of the file; without it, no driver is loaded. Every call is logged in <path>.audit.
 * The library refuses what real GPUs refuse, and simulates the faults that a test has requested (see control.c).
 */

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "state.h"

#define API __attribute__((visibility("default")))

enum {
    OK = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NO_PERMISSION = 4,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    RESET_REQUIRED = 16,
    IN_USE = 19,
    INSUFFICIENT_RESOURCES = 23,
    VERSION_MISMATCH = 25,
};

#define PROFILE_VERSION 0x02000098u
#define CI_PROFILE_VERSION 0x02000088u
#define MEMORY_VERSION 0x02000028u
#define N_GI_PROFILES 18
#define N_CI_PROFILES 9
#define NONE 0xFFFFFFFFu

typedef struct { unsigned start, size; } placement_t;

typedef struct {
    unsigned id, p2p, slices, instances, multiprocessors, copy, decoders, encoders, jpeg, ofa;
    unsigned long long mib;
} profile_t;

typedef struct {
    unsigned version, id, p2p, slices, instances, multiprocessors, copy, decoders, encoders, jpeg, ofa;
    unsigned long long mib;
    char name[96];
} profile_v2_t;

typedef struct {
    unsigned id, slices, instances, multiprocessors, copy, decoders, encoders, jpeg, ofa;
} ci_profile_t;

typedef struct {
    unsigned version, id, slices, instances, multiprocessors, copy, decoders, encoders, jpeg, ofa;
    char name[96];
} ci_profile_v2_t;

typedef struct { void *device; unsigned id, profile; placement_t placement; } gi_info_t;
typedef struct { void *device, *gi; unsigned id, profile; placement_t placement; } ci_info_t;
typedef struct { unsigned pid; unsigned long long memory; unsigned gi, ci; } process_t;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned holders; } gpm_sample_t;
typedef struct { unsigned id; int code; double value; const char *texts[3]; } gpm_metric_t;
typedef struct { unsigned version, count; gpm_sample_t *first, *second; gpm_metric_t metrics[]; } gpm_metrics_t;

/* --- calls ------------------------------------------------------------------------------------------------------- */

enum effect { READS, CREATES, DESTROYS, CHANGES };

struct call {
    const char *name;
    int code, crash;
};

static struct mapping mapping;
static int references;

static int audit_file = -1;

static void open_audit(void) {
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

static struct call begin(const char *name, enum effect effect) {
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

static int end(const struct call *call, const char *format, ...) {
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

enum kind { DEVICE = 1, MIG_DEVICE, GI, CI };

static void *handle_of(enum kind kind, uint64_t number) {
    return (void *)((uintptr_t)kind << 56 | (uintptr_t)number);
}

static int is(enum kind kind, const void *handle) {
    return (uintptr_t)handle >> 56 == kind;
}

static uint64_t number_of(const void *handle) {
    return (uintptr_t)handle & (((uintptr_t)1 << 56) - 1);
}

/* A GPU instance (GI) or compute instance (CI) that was found by its serial number, with its board. */
struct found {
    struct board *board;
    struct gi *gi;
    struct ci *ci;
};

static int index_of(const struct board *board) {
    return (int)(board - mapping.state->boards);
}

static struct board *board_of(const void *handle) {
    const uint64_t number = number_of(handle);
    return is(DEVICE, handle) && number < (uint64_t)mapping.state->n_boards ? &mapping.state->boards[number] : 0;
}

static struct found find(const void *handle) {
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

static int needs_mig(const struct board *board) {
    if (!board) return INVALID_ARGUMENT;
    return MODELS[board->model].geometry && board->current ? OK : NOT_SUPPORTED;
}

/* --- the library -------------------------------------------------------------------------------------------------- */

API int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    const char *path = getenv("NVML_STANDIN");
    if (!path) return DRIVER_NOT_LOADED;
    if (mapping.state && strcmp(mapping.path, path) != 0) unmap_state(&mapping);
    if (!mapping.state) {
        if (!map_state(&mapping, path, 0)) return DRIVER_NOT_LOADED;
        open_audit();
    }
    if (!mapping.state->loaded) return DRIVER_NOT_LOADED;
    references++;
    return OK;
}

API int nvmlInit_v2(void) {
    return nvmlInitWithFlags(0);
}

API int nvmlShutdown(void) {
    if (!references) return UNINITIALIZED;
    references--;
    return OK;
}

API const char *nvmlErrorString(int code) {
    return code == OK ? "Success" : "Error of the stand-in";
}

API int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    struct call call = begin("nvmlSystemGetDriverVersion", READS);
    if (call.code == OK) snprintf(version, length, "0.0.standin");
    return end(&call, "");
}

API int nvmlDeviceGetCount_v2(unsigned *count) {
    struct call call = begin("nvmlDeviceGetCount_v2", READS);
    if (call.code == OK) *count = (unsigned)mapping.state->n_boards;
    return end(&call, "");
}

API int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    struct call call = begin("nvmlDeviceGetHandleByIndex_v2", READS);
    if (call.code == OK && index >= (unsigned)mapping.state->n_boards) call.code = INVALID_ARGUMENT;
    if (call.code == OK) *device = handle_of(DEVICE, index);
    return end(&call, "%u", index);
}

API int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    struct call call = begin("nvmlDeviceGetHandleByUUID", READS);
    if (call.code == OK) {
        call.code = NOT_FOUND;
        for (int b = 0; b < mapping.state->n_boards; b++) {
            const struct board *board = &mapping.state->boards[b];
            if (strcmp(board->uuid, uuid) == 0) *device = handle_of(DEVICE, (uint64_t)b), call.code = OK;
            for (int g = 0; g < MAX_GIS; g++)
                for (int c = 0; board->gi[g].serial && c < MAX_CIS; c++)
                    if (board->gi[g].ci[c].serial && strcmp(board->gi[g].ci[c].uuid, uuid) == 0)
                        *device = handle_of(MIG_DEVICE, board->gi[g].ci[c].serial), call.code = OK;
        }
    }
    return end(&call, "%s", uuid);
}

API int nvmlDeviceGetName(void *device, char *name, unsigned length) {
    struct call call = begin("nvmlDeviceGetName", READS);
    const struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK && !board) call.code = INVALID_ARGUMENT;
    if (call.code == OK) snprintf(name, length, "%s", MODELS[board->model].nvml_name);
    return end(&call, "%d", board ? index_of(board) : -1);
}

API int nvmlDeviceGetIndex(void *device, unsigned *index) {
    struct call call = begin("nvmlDeviceGetIndex", READS);
    const struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK && !board) call.code = INVALID_ARGUMENT;
    if (call.code == OK) *index = (unsigned)index_of(board);
    return end(&call, "");
}

/* The PCI device id is the board's index in MODELS, with NVIDIA's vendor id. */
API int nvmlDeviceGetPciInfo_v3(void *device, pci_t *info) {
    struct call call = begin("nvmlDeviceGetPciInfo_v3", READS);
    const struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK && !board) call.code = INVALID_ARGUMENT;
    if (call.code == OK) *info = (pci_t){.bus = (unsigned)index_of(board) + 1, .id = (unsigned)board->model << 16 | 0x10DE};
    return end(&call, "");
}

API int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    struct call call = begin("nvmlDeviceGetUUID", READS);
    if (call.code == OK) {
        const struct board *board = board_of(device);
        const struct found found = find(device);
        if (board) snprintf(uuid, length, "%s", board->uuid);
        else if (is(MIG_DEVICE, device) && found.ci) snprintf(uuid, length, "%s", found.ci->uuid);
        else call.code = INVALID_ARGUMENT;
    }
    return end(&call, "");
}

/* --- MIG mode ----------------------------------------------------------------------------------------------------- */

static int any_gi(const struct board *board) {
    for (int g = 0; g < MAX_GIS; g++)
        if (board->gi[g].serial) return 1;
    return 0;
}

API int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    struct call call = begin("nvmlDeviceGetMigMode", READS);
    const struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK && !board) call.code = INVALID_ARGUMENT;
    if (call.code == OK && !MODELS[board->model].geometry) call.code = NOT_SUPPORTED;
    if (call.code == OK) *current = board->current, *pending = board->pending;
    return end(&call, "%d", board ? index_of(board) : -1);
}

/* On Ampere the new mode is pending until the GPU is reset. */
API int nvmlDeviceSetMigMode(void *device, unsigned mode, int *status) {
    struct call call = begin("nvmlDeviceSetMigMode", CHANGES);
    struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK && (!board || mode > 1)) call.code = INVALID_ARGUMENT;
    if (call.code == OK && !MODELS[board->model].geometry) call.code = NOT_SUPPORTED;
    if (call.code == OK && any_gi(board)) call.code = IN_USE;
    if (call.code == OK) {
        board->pending = mode;
        *status = OK;
        if (find_holders(mapping.state, board->uuid, 0, 0)) *status = IN_USE;
        else if (MODELS[board->model].reset && board->current != mode) *status = RESET_REQUIRED;
        else board->current = mode;
    }
    return end(&call, "%d, %u", board ? index_of(board) : -1, mode);
}

API int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) {
    struct call call = begin("nvmlDeviceGetMaxMigDeviceCount", READS);
    const struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK && !board) call.code = INVALID_ARGUMENT;
    if (call.code == OK) *count = MODELS[board->model].geometry ? MODELS[board->model].geometry->compute : 0;
    return end(&call, "");
}

/* --- profiles of GPU instances ------------------------------------------------------------------------------------ */

/* Finds a shape by its number in NVML's enumeration, or by its profile id. Returns NONE if there is no such shape. */
static unsigned shape_by(const struct board *board, unsigned number, int by_id) {
    const struct geometry *geometry = MODELS[board->model].geometry;
    for (unsigned i = 0; geometry && i < geometry->count; i++)
        if ((by_id ? geometry->shapes[i].id : geometry->shapes[i].nvml_enum) == number) return i;
    return NONE;
}

/* On Hopper and later, decoders are in proportion to compute slices. On Ampere they follow memory, and 1g has none. */
static profile_t describe(const struct board *board, unsigned index) {
    const struct shape *shape = shape_of(board, index);
    const struct model *model = &MODELS[board->model];
    const int whole = shape->memory == model->geometry->memory;
    const unsigned decoders = shape->media || !model->reset ? shape->compute : shape->memory > 1 ? shape->memory / 2 : 0;
    return (profile_t){
        .id = shape->id,
        .slices = shape->compute,
        .instances = shape->max,
        .multiprocessors = multiprocessors(model, shape),
        .copy = shape->compute,
        .decoders = decoders,
        .jpeg = shape->media || whole || !model->reset ? shape->compute : 0,
        .ofa = shape->media || whole,
        .mib = model->mib[shape->memory],
    };
}

static int profile_call(struct call *call, void *device, unsigned profile, int needs_mode, profile_t *info) {
    const struct board *board = call->code == OK ? board_of(device) : 0;
    if (call->code == OK && (!board || profile >= N_GI_PROFILES)) call->code = INVALID_ARGUMENT;
    if (call->code == OK && needs_mode) call->code = needs_mig(board);
    const unsigned index = call->code == OK ? shape_by(board, profile, 0) : NONE;
    if (call->code == OK && index == NONE) call->code = NOT_SUPPORTED;
    if (call->code == OK) *info = describe(board, index);
    return call->code == OK;
}

API int nvmlDeviceGetGpuInstanceProfileInfo(void *device, unsigned profile, profile_t *info) {
    struct call call = begin("nvmlDeviceGetGpuInstanceProfileInfo", READS);
    profile_call(&call, device, profile, 0, info);
    return end(&call, "%u", profile);
}

API int nvmlDeviceGetGpuInstanceProfileInfoV(void *device, unsigned profile, profile_v2_t *info) {
    struct call call = begin("nvmlDeviceGetGpuInstanceProfileInfoV", READS);
    profile_t plain;
    if (call.code == OK && info->version != PROFILE_VERSION) call.code = VERSION_MISMATCH;
    if (profile_call(&call, device, profile, 1, &plain)) {
        const struct board *board = board_of(device);
        const struct shape *shape = shape_of(board, shape_by(board, profile, 0));
        *info = (profile_v2_t){
            PROFILE_VERSION, plain.id, plain.p2p, plain.slices, plain.instances, plain.multiprocessors, plain.copy,
            plain.decoders, plain.encoders, plain.jpeg, plain.ofa, plain.mib, "",
        };
        snprintf(info->name, sizeof info->name, "MIG %ug.%ugb%s", shape->compute,
                 MODELS[board->model].gb[shape->memory], shape->media ? "+me" : "");
    }
    return end(&call, "%u", profile);
}

API int nvmlDeviceGetGpuInstancePossiblePlacements_v2(void *device, unsigned id, placement_t *places, unsigned *count) {
    struct call call = begin("nvmlDeviceGetGpuInstancePossiblePlacements_v2", READS);
    const struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK) call.code = needs_mig(board);
    const unsigned index = call.code == OK ? shape_by(board, id, 1) : NONE;
    if (call.code == OK && index == NONE) call.code = INVALID_ARGUMENT;
    if (call.code == OK) {
        const struct shape *shape = shape_of(board, index);
        if (places && *count < shape->count) call.code = INSUFFICIENT_SIZE;
        for (unsigned i = 0; call.code == OK && places && i < shape->count; i++)
            places[i] = (placement_t){shape->starts[i], shape->memory};
        *count = shape->count;
    }
    return end(&call, "%u", id);
}

API int nvmlDeviceGetGpuInstanceRemainingCapacity(void *device, unsigned id, unsigned *count) {
    struct call call = begin("nvmlDeviceGetGpuInstanceRemainingCapacity", READS);
    struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK) call.code = needs_mig(board);
    const unsigned index = call.code == OK ? shape_by(board, id, 1) : NONE;
    if (call.code == OK && index == NONE) call.code = INVALID_ARGUMENT;
    if (call.code == OK) {
        struct state trial = *mapping.state;
        struct board *copy = &trial.boards[index_of(board)];
        *count = 0;
        for (unsigned i = 0; i < shape_of(board, index)->count; i++)
            if (can_place(copy, index, shape_of(board, index)->starts[i]))
                place_gi(&trial, copy, index, shape_of(board, index)->starts[i]), ++*count;
    }
    return end(&call, "%u", id);
}

/* --- GPU instances ------------------------------------------------------------------------------------------------ */

static int is_start(const struct shape *shape, unsigned start) {
    for (unsigned i = 0; i < shape->count; i++)
        if (shape->starts[i] == start) return 1;
    return 0;
}

API int nvmlDeviceCreateGpuInstance(void *device, unsigned id, void **instance) {
    struct call call = begin("nvmlDeviceCreateGpuInstance", CREATES);
    struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK) call.code = needs_mig(board);
    const unsigned index = call.code == OK ? shape_by(board, id, 1) : NONE;
    if (call.code == OK && index == NONE) call.code = INVALID_ARGUMENT;
    if (call.code == OK) {
        const struct shape *shape = shape_of(board, index);
        call.code = INSUFFICIENT_RESOURCES;
        for (unsigned i = 0; call.code != OK && i < shape->count; i++)
            if (can_place(board, index, shape->starts[i])) {
                *instance = handle_of(GI, place_gi(mapping.state, board, index, shape->starts[i])->serial);
                call.code = OK;
            }
    }
    return end(&call, "%d, %u", board ? index_of(board) : -1, id);
}

API int nvmlDeviceCreateGpuInstanceWithPlacement(void *device, unsigned id, const placement_t *place, void **instance) {
    struct call call = begin("nvmlDeviceCreateGpuInstanceWithPlacement", CREATES);
    struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK) call.code = needs_mig(board);
    const unsigned index = call.code == OK ? shape_by(board, id, 1) : NONE;
    if (call.code == OK && index == NONE) call.code = INVALID_ARGUMENT;
    if (call.code == OK && place->size != shape_of(board, index)->memory) call.code = INVALID_ARGUMENT;
    if (call.code == OK && !is_start(shape_of(board, index), place->start)) call.code = INVALID_ARGUMENT;
    if (call.code == OK && !can_place(board, index, place->start)) call.code = INSUFFICIENT_RESOURCES;
    if (call.code == OK) *instance = handle_of(GI, place_gi(mapping.state, board, index, place->start)->serial);
    return end(&call, "%d, %u, %u:%u", board ? index_of(board) : -1, id, place->start, place->size);
}

API int nvmlGpuInstanceDestroy(void *instance) {
    struct call call = begin("nvmlGpuInstanceDestroy", DESTROYS);
    const struct found found = call.code == OK ? find(instance) : (struct found){0, 0, 0};
    const int index = found.board ? index_of(found.board) : -1;
    const unsigned start = found.gi ? found.gi->start : 0;
    if (call.code == OK && !found.gi) call.code = NOT_FOUND;
    if (call.code == OK && now_ms() < found.gi->agent_until_ms) call.code = IN_USE;
    for (int c = 0; call.code == OK && c < MAX_CIS; c++)
        if (found.gi->ci[c].serial) call.code = IN_USE;
    if (call.code == OK) memset(found.gi, 0, sizeof *found.gi);
    return end(&call, "%d@%u", index, start);
}

API int nvmlDeviceGetGpuInstances(void *device, unsigned id, void **instances, unsigned *count) {
    struct call call = begin("nvmlDeviceGetGpuInstances", READS);
    struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK) call.code = needs_mig(board);
    if (call.code == OK && mapping.state->denied & DENY_INSTANCES) call.code = NO_PERMISSION;
    const unsigned index = call.code == OK ? shape_by(board, id, 1) : NONE;
    if (call.code == OK && index == NONE) call.code = INVALID_ARGUMENT;
    if (call.code == OK) {
        *count = 0;
        for (int g = 0; g < MAX_GIS; g++)
            if (board->gi[g].serial && board->gi[g].shape == index)
                instances[(*count)++] = handle_of(GI, board->gi[g].serial);
    }
    return end(&call, "%d, %u", board ? index_of(board) : -1, id);
}

API int nvmlDeviceGetGpuInstanceById(void *device, unsigned id, void **instance) {
    struct call call = begin("nvmlDeviceGetGpuInstanceById", READS);
    struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK) call.code = needs_mig(board);
    if (call.code == OK && mapping.state->denied & DENY_INSTANCES) call.code = NO_PERMISSION;
    if (call.code == OK) {
        call.code = NOT_FOUND;
        for (int g = 0; g < MAX_GIS; g++)
            if (board->gi[g].serial && board->gi[g].id == id)
                *instance = handle_of(GI, board->gi[g].serial), call.code = OK;
    }
    return end(&call, "%d, %u", board ? index_of(board) : -1, id);
}

API int nvmlGpuInstanceGetInfo(void *instance, gi_info_t *info) {
    struct call call = begin("nvmlGpuInstanceGetInfo", READS);
    const struct found found = call.code == OK ? find(instance) : (struct found){0, 0, 0};
    if (call.code == OK && !found.gi) call.code = NOT_FOUND;
    if (call.code == OK) {
        const struct shape *shape = shape_of(found.board, found.gi->shape);
        *info = (gi_info_t){handle_of(DEVICE, (uint64_t)index_of(found.board)), found.gi->id, shape->id,
                            {found.gi->start, shape->memory}};
    }
    return end(&call, "");
}

/* --- compute instances -------------------------------------------------------------------------------------------- */

static const unsigned CI_SLICES[N_CI_PROFILES] = {1, 2, 3, 4, 7, 8, 6, 1, 7};

/* Returns the multiprocessors of a compute instance with this profile in a GPU instance; 0 if there is no such profile.
 * On Hopper, a 1g with double memory has more multiprocessors than a 1g, and a profile of its own for all of them. */
static unsigned ci_multiprocessors(const struct found *found, unsigned profile) {
    const struct shape *shape = shape_of(found->board, found->gi->shape);
    const struct model *model = &MODELS[found->board->model];
    const unsigned all = multiprocessors(model, shape);
    const int doubled = shape->compute == 1 && shape->memory == 2;
    if (profile == 7) return doubled ? all : 0;
    if (profile > 4 || CI_SLICES[profile] > shape->compute) return 0;
    if (doubled) return all > model->sm[0] ? model->sm[0] : 0;
    return CI_SLICES[profile] == shape->compute ? all : CI_SLICES[profile] * model->sm[0];
}

static unsigned ci_free_start(const struct found *found, unsigned size) {
    for (unsigned start = 0; start + size <= shape_of(found->board, found->gi->shape)->compute; start++) {
        int free = 1;
        for (int c = 0; c < MAX_CIS; c++) {
            const struct ci *ci = &found->gi->ci[c];
            if (ci->serial && start < ci->start + ci->size && ci->start < start + size) free = 0;
        }
        if (free) return start;
    }
    return NONE;
}

static struct found ci_profile_call(struct call *call, void *instance, unsigned profile) {
    const struct found found = call->code == OK ? find(instance) : (struct found){0, 0, 0};
    if (call->code == OK && (!found.gi || found.ci)) call->code = NOT_FOUND;
    if (call->code == OK && profile >= N_CI_PROFILES) call->code = INVALID_ARGUMENT;
    if (call->code == OK && !ci_multiprocessors(&found, profile)) call->code = NOT_SUPPORTED;
    return found;
}

API int nvmlGpuInstanceGetComputeInstanceProfileInfo(void *instance, unsigned profile, unsigned engines, ci_profile_t *info) {
    struct call call = begin("nvmlGpuInstanceGetComputeInstanceProfileInfo", READS);
    if (call.code == OK && engines) call.code = NOT_SUPPORTED;
    const struct found found = ci_profile_call(&call, instance, profile);
    if (call.code == OK)
        *info = (ci_profile_t){.id = profile, .slices = CI_SLICES[profile],
                               .instances = shape_of(found.board, found.gi->shape)->compute / CI_SLICES[profile],
                               .multiprocessors = ci_multiprocessors(&found, profile)};
    return end(&call, "%u", profile);
}

API int nvmlGpuInstanceGetComputeInstanceProfileInfoV(void *instance, unsigned profile, unsigned engines, ci_profile_v2_t *info) {
    struct call call = begin("nvmlGpuInstanceGetComputeInstanceProfileInfoV", READS);
    if (call.code == OK && info->version != CI_PROFILE_VERSION) call.code = VERSION_MISMATCH;
    if (call.code == OK && engines) call.code = NOT_SUPPORTED;
    const struct found found = ci_profile_call(&call, instance, profile);
    if (call.code == OK)
        *info = (ci_profile_v2_t){.version = CI_PROFILE_VERSION, .id = profile, .slices = CI_SLICES[profile],
                                  .instances = shape_of(found.board, found.gi->shape)->compute / CI_SLICES[profile],
                                  .multiprocessors = ci_multiprocessors(&found, profile)};
    return end(&call, "%u", profile);
}

API int nvmlGpuInstanceCreateComputeInstance(void *instance, unsigned profile, void **created) {
    struct call call = begin("nvmlGpuInstanceCreateComputeInstance", CREATES);
    const struct found found = ci_profile_call(&call, instance, profile);
    const unsigned start = call.code == OK ? ci_free_start(&found, CI_SLICES[profile]) : NONE;
    if (call.code == OK && start == NONE) call.code = INSUFFICIENT_RESOURCES;
    if (call.code == OK)
        *created = handle_of(CI, place_ci(mapping.state, found.gi, profile, start, CI_SLICES[profile])->serial);
    return end(&call, "%d@%u, %u", found.board ? index_of(found.board) : -1, found.gi ? found.gi->start : 0, profile);
}

API int nvmlComputeInstanceDestroy(void *instance) {
    struct call call = begin("nvmlComputeInstanceDestroy", DESTROYS);
    const struct found found = call.code == OK ? find(instance) : (struct found){0, 0, 0};
    const int index = found.board ? index_of(found.board) : -1;
    const unsigned start = found.gi ? found.gi->start : 0;
    if (call.code == OK && !found.ci) call.code = NOT_FOUND;
    if (call.code == OK && now_ms() < found.gi->agent_until_ms) call.code = IN_USE;
    if (call.code == OK && find_holders(mapping.state, found.ci->uuid, 0, 0)) call.code = IN_USE;
    if (call.code == OK) memset(found.ci, 0, sizeof *found.ci);
    return end(&call, "%d@%u", index, start);
}

API int nvmlGpuInstanceGetComputeInstances(void *instance, unsigned profile, void **instances, unsigned *count) {
    struct call call = begin("nvmlGpuInstanceGetComputeInstances", READS);
    const struct found found = ci_profile_call(&call, instance, profile);
    if (call.code == OK) {
        *count = 0;
        for (int c = 0; c < MAX_CIS; c++)
            if (found.gi->ci[c].serial && found.gi->ci[c].profile == profile)
                instances[(*count)++] = handle_of(CI, found.gi->ci[c].serial);
    }
    return end(&call, "%u", profile);
}

API int nvmlComputeInstanceGetInfo_v2(void *instance, ci_info_t *info) {
    struct call call = begin("nvmlComputeInstanceGetInfo_v2", READS);
    const struct found found = call.code == OK ? find(instance) : (struct found){0, 0, 0};
    if (call.code == OK && !found.ci) call.code = NOT_FOUND;
    if (call.code == OK)
        *info = (ci_info_t){handle_of(MIG_DEVICE, found.ci->serial), handle_of(GI, found.gi->serial), found.ci->id,
                            found.ci->profile, {found.ci->start, found.ci->size}};
    return end(&call, "");
}

/* --- MIG devices -------------------------------------------------------------------------------------------------- */

API int nvmlDeviceIsMigDeviceHandle(void *device, unsigned *is_mig) {
    struct call call = begin("nvmlDeviceIsMigDeviceHandle", READS);
    if (call.code == OK) *is_mig = is(MIG_DEVICE, device);
    return end(&call, "");
}

API int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **mig) {
    struct call call = begin("nvmlDeviceGetMigDeviceHandleByIndex", READS);
    struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK) call.code = needs_mig(board);
    if (call.code == OK) {
        unsigned seen = 0;
        call.code = NOT_FOUND;
        for (int g = 0; g < MAX_GIS; g++)
            for (int c = 0; c < MAX_CIS; c++)
                if (board->gi[g].serial && board->gi[g].ci[c].serial && seen++ == index)
                    *mig = handle_of(MIG_DEVICE, board->gi[g].ci[c].serial), call.code = OK;
    }
    return end(&call, "%u", index);
}

API int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *mig, void **device) {
    struct call call = begin("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", READS);
    const struct found found = call.code == OK ? find(mig) : (struct found){0, 0, 0};
    if (call.code == OK && !found.ci) call.code = INVALID_ARGUMENT;
    if (call.code == OK) *device = handle_of(DEVICE, (uint64_t)index_of(found.board));
    return end(&call, "");
}

API int nvmlDeviceGetGpuInstanceId(void *mig, unsigned *id) {
    struct call call = begin("nvmlDeviceGetGpuInstanceId", READS);
    const struct found found = call.code == OK ? find(mig) : (struct found){0, 0, 0};
    if (call.code == OK && !found.ci) call.code = INVALID_ARGUMENT;
    if (call.code == OK) *id = found.gi->id;
    return end(&call, "");
}

API int nvmlDeviceGetComputeInstanceId(void *mig, unsigned *id) {
    struct call call = begin("nvmlDeviceGetComputeInstanceId", READS);
    const struct found found = call.code == OK ? find(mig) : (struct found){0, 0, 0};
    if (call.code == OK && !found.ci) call.code = INVALID_ARGUMENT;
    if (call.code == OK) *id = found.ci->id;
    return end(&call, "");
}

/* --- processes and memory ----------------------------------------------------------------------------------------- */

static unsigned list_processes(const char *uuid, unsigned gi, unsigned ci, process_t *list, unsigned found, unsigned room) {
    pid_t pids[MAX_HOLDERS];
    const unsigned count = find_holders(mapping.state, uuid, pids, MAX_HOLDERS);
    for (unsigned i = 0; i < count && i < MAX_HOLDERS; i++, found++)
        if (list && found < room) list[found] = (process_t){(unsigned)pids[i], 0, gi, ci};
    return found;
}

API int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_t *list) {
    struct call call = begin("nvmlDeviceGetComputeRunningProcesses_v3", READS);
    if (call.code == OK && mapping.state->denied & DENY_INSTANCES) call.code = NO_PERMISSION;
    const struct board *board = call.code == OK ? board_of(device) : 0;
    const struct found mig = call.code == OK ? find(device) : (struct found){0, 0, 0};
    if (call.code == OK && !board && !mig.ci) call.code = INVALID_ARGUMENT;
    if (call.code == OK) {
        unsigned found = 0;
        if (mig.ci) found = list_processes(mig.ci->uuid, mig.gi->id, mig.ci->id, list, 0, *count);
        else {
            found = list_processes(board->uuid, NONE, NONE, list, 0, *count);
            for (int g = 0; g < MAX_GIS; g++)
                for (int c = 0; c < MAX_CIS; c++)
                    if (board->gi[g].serial && board->gi[g].ci[c].serial)
                        found = list_processes(board->gi[g].ci[c].uuid, board->gi[g].id, board->gi[g].ci[c].id, list,
                                               found, *count);
        }
        if (found > *count) call.code = INSUFFICIENT_SIZE;
        *count = found;
    }
    return end(&call, "");
}

/* Each process that holds an instance uses half a GiB of it. */
static unsigned long long used_of(void *device) {
    const struct board *board = board_of(device);
    const struct found mig = find(device);
    const char *uuid = mig.ci ? mig.ci->uuid : board ? board->uuid : "";
    return (unsigned long long)find_holders(mapping.state, uuid, 0, 0) << 29;
}

static unsigned long long bytes_of(void *device) {
    const struct board *board = board_of(device);
    const struct found mig = find(device);
    if (mig.ci) return (unsigned long long)describe(mig.board, mig.gi->shape).mib << 20;
    if (!board || !MODELS[board->model].geometry) return 24ull << 30;
    return (unsigned long long)MODELS[board->model].mib[MODELS[board->model].geometry->memory] << 20;
}

API int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    struct call call = begin("nvmlDeviceGetMemoryInfo", READS);
    if (call.code == OK && !board_of(device) && !find(device).ci) call.code = INVALID_ARGUMENT;
    if (call.code == OK) *memory = (memory_t){bytes_of(device), bytes_of(device) - used_of(device), used_of(device)};
    return end(&call, "");
}

API int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2_t *memory) {
    struct call call = begin("nvmlDeviceGetMemoryInfo_v2", READS);
    if (call.code == OK && memory->version != MEMORY_VERSION) call.code = VERSION_MISMATCH;
    if (call.code == OK && !board_of(device) && !find(device).ci) call.code = INVALID_ARGUMENT;
    if (call.code == OK) *memory = (memory_v2_t){MEMORY_VERSION, bytes_of(device), 0, bytes_of(device) - used_of(device), used_of(device)};
    return end(&call, "");
}

/* --- performance metrics, from Hopper on -------------------------------------------------------------------------- */

#define GPM_SM_UTIL 2

static int has_gpm(const struct board *board) {
    return board && MODELS[board->model].geometry && !MODELS[board->model].reset;
}

API int nvmlGpmSampleAlloc(gpm_sample_t **sample) {
    struct call call = begin("nvmlGpmSampleAlloc", READS);
    if (call.code == OK) *sample = calloc(1, sizeof **sample);
    return end(&call, "");
}

API int nvmlGpmSampleFree(gpm_sample_t *sample) {
    struct call call = begin("nvmlGpmSampleFree", READS);
    if (call.code == OK) free(sample);
    return end(&call, "");
}

API int nvmlGpmSampleGet(void *device, gpm_sample_t *sample) {
    struct call call = begin("nvmlGpmSampleGet", READS);
    const struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK && !has_gpm(board)) call.code = NOT_SUPPORTED;
    if (call.code == OK) sample->holders = find_holders(mapping.state, board->uuid, 0, 0);
    return end(&call, "");
}

API int nvmlGpmMigSampleGet(void *device, unsigned id, gpm_sample_t *sample) {
    struct call call = begin("nvmlGpmMigSampleGet", READS);
    const struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK && !has_gpm(board)) call.code = NOT_SUPPORTED;
    if (call.code == OK) {
        call.code = NOT_FOUND;
        for (int g = 0; g < MAX_GIS; g++)
            if (board->gi[g].serial && board->gi[g].id == id) {
                sample->holders = find_holders(mapping.state, board->gi[g].ci[0].uuid, 0, 0);
                call.code = OK;
            }
    }
    return end(&call, "%u", id);
}

/* Each process that held the instance at the second sample adds 25 % to the utilisation of its multiprocessors. */
API int nvmlGpmMetricsGet(gpm_metrics_t *query) {
    struct call call = begin("nvmlGpmMetricsGet", READS);
    if (call.code == OK && query->version != 1) call.code = VERSION_MISMATCH;
    for (unsigned i = 0; call.code == OK && i < query->count; i++) {
        query->metrics[i].code = query->metrics[i].id == GPM_SM_UTIL ? OK : NOT_SUPPORTED;
        query->metrics[i].value = 25.0 * query->second->holders;
    }
    return end(&call, "%u", query->count);
}
