/* A stand-in for libnvidia-ml.so.1: the part of NVML that reads and changes MIG, for simulated GPUs in a file.
 *
 * NVML_STANDIN contains the path of the file; without it, no driver is loaded. Every call is logged in <path>.audit.
 * The library refuses what real GPUs refuse, and simulates the faults that a test has requested (see control.c).
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"

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
    return end(&call, "%d", index_of(board));
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
    return end(&call, "%d", index_of(board));
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
    return end(&call, "%d, %u", index_of(board), mode);
}

API int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) {
    struct call call = begin("nvmlDeviceGetMaxMigDeviceCount", READS);
    const struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK && !board) call.code = INVALID_ARGUMENT;
    if (call.code == OK) *count = MODELS[board->model].geometry ? MODELS[board->model].geometry->compute : 0;
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
    const struct found found = found_by(&call, mig);
    if (call.code == OK && !found.ci) call.code = INVALID_ARGUMENT;
    if (call.code == OK) *device = handle_of(DEVICE, (uint64_t)index_of(found.board));
    return end(&call, "");
}

API int nvmlDeviceGetGpuInstanceId(void *mig, unsigned *id) {
    struct call call = begin("nvmlDeviceGetGpuInstanceId", READS);
    const struct found found = found_by(&call, mig);
    if (call.code == OK && !found.ci) call.code = INVALID_ARGUMENT;
    if (call.code == OK) *id = found.gi->id;
    return end(&call, "");
}

API int nvmlDeviceGetComputeInstanceId(void *mig, unsigned *id) {
    struct call call = begin("nvmlDeviceGetComputeInstanceId", READS);
    const struct found found = found_by(&call, mig);
    if (call.code == OK && !found.ci) call.code = INVALID_ARGUMENT;
    if (call.code == OK) *id = found.ci->id;
    return end(&call, "");
}
