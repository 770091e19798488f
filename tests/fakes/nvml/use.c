/* What uses the GPUs: processes, memory, energy and performance metrics. */

#include <stdlib.h>

#include "instances.h"

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
    const struct found mig = found_by(&call, device);
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

/* --- energy ------------------------------------------------------------------------------------------------------- */

/* Power of each board: millijoules in each millisecond. */
#define WATTS 80

/* NVML counts the energy of whole boards only, from the load of the driver on. */
API int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *mj) {
    struct call call = begin("nvmlDeviceGetTotalEnergyConsumption", READS);
    const struct board *board = call.code == OK ? board_of(device) : 0;
    if (call.code == OK && !board) call.code = find(device).ci ? NOT_SUPPORTED : INVALID_ARGUMENT;
    if (call.code == OK) *mj = board->consumed_mj + WATTS * (now_ms() - board->counting_since_ms);
    return end(&call, "%d", index_of(board));
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
