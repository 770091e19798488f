/* Profiles of GPU instances and compute instances, their creation and their destruction. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "instances.h"

/* --- profiles of GPU instances ------------------------------------------------------------------------------------ */

/* Finds a shape by its number in NVML's enumeration, or by its profile id. Returns NONE if there is no such shape. */
static unsigned shape_by(const struct board *board, unsigned number, int by_id) {
    const struct geometry *geometry = MODELS[board->model].geometry;
    for (unsigned i = 0; geometry && i < geometry->count; i++)
        if ((by_id ? geometry->shapes[i].id : geometry->shapes[i].nvml_enum) == number) return i;
    return NONE;
}

/* Returns the board of a call that needs MIG; the call fails without MIG. */
static struct board *mig_board(struct call *call, void *device) {
    struct board *board = call->code == OK ? board_of(device) : 0;
    if (call->code == OK) call->code = needs_mig(board);
    return board;
}

/* Returns the shape of a call with a profile id. The call fails if there is no such shape. */
static unsigned shape_with(struct call *call, const struct board *board, unsigned id) {
    const unsigned index = call->code == OK ? shape_by(board, id, 1) : NONE;
    if (call->code == OK && index == NONE) call->code = INVALID_ARGUMENT;
    return index;
}

/* On Hopper and later, decoders are in proportion to compute slices. On Ampere they follow memory, and 1g has none. */
profile_t describe(const struct board *board, unsigned index) {
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
    const struct board *board = mig_board(&call, device);
    const unsigned index = shape_with(&call, board, id);
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
    struct board *board = mig_board(&call, device);
    const unsigned index = shape_with(&call, board, id);
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
    struct board *board = mig_board(&call, device);
    const unsigned index = shape_with(&call, board, id);
    if (call.code == OK) {
        const struct shape *shape = shape_of(board, index);
        call.code = INSUFFICIENT_RESOURCES;
        for (unsigned i = 0; call.code != OK && i < shape->count; i++)
            if (can_place(board, index, shape->starts[i])) {
                *instance = handle_of(GI, place_gi(mapping.state, board, index, shape->starts[i])->serial);
                call.code = OK;
            }
    }
    return end(&call, "%d, %u", index_of(board), id);
}

API int nvmlDeviceCreateGpuInstanceWithPlacement(void *device, unsigned id, const placement_t *place, void **instance) {
    struct call call = begin("nvmlDeviceCreateGpuInstanceWithPlacement", CREATES);
    struct board *board = mig_board(&call, device);
    const unsigned index = shape_with(&call, board, id);
    if (call.code == OK && place->size != shape_of(board, index)->memory) call.code = INVALID_ARGUMENT;
    if (call.code == OK && !is_start(shape_of(board, index), place->start)) call.code = INVALID_ARGUMENT;
    if (call.code == OK && !can_place(board, index, place->start)) call.code = INSUFFICIENT_RESOURCES;
    if (call.code == OK) *instance = handle_of(GI, place_gi(mapping.state, board, index, place->start)->serial);
    return end(&call, "%d, %u, %u:%u", index_of(board), id, place->start, place->size);
}

API int nvmlGpuInstanceDestroy(void *instance) {
    struct call call = begin("nvmlGpuInstanceDestroy", DESTROYS);
    const struct found found = found_by(&call, instance);
    const int index = index_of(found.board);
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
    struct board *board = mig_board(&call, device);
    if (call.code == OK && mapping.state->denied & DENY_INSTANCES) call.code = NO_PERMISSION;
    const unsigned index = shape_with(&call, board, id);
    if (call.code == OK) {
        *count = 0;
        for (int g = 0; g < MAX_GIS; g++)
            if (board->gi[g].serial && board->gi[g].shape == index)
                instances[(*count)++] = handle_of(GI, board->gi[g].serial);
    }
    return end(&call, "%d, %u", index_of(board), id);
}

API int nvmlDeviceGetGpuInstanceById(void *device, unsigned id, void **instance) {
    struct call call = begin("nvmlDeviceGetGpuInstanceById", READS);
    struct board *board = mig_board(&call, device);
    if (call.code == OK && mapping.state->denied & DENY_INSTANCES) call.code = NO_PERMISSION;
    if (call.code == OK) {
        call.code = NOT_FOUND;
        for (int g = 0; g < MAX_GIS; g++)
            if (board->gi[g].serial && board->gi[g].id == id)
                *instance = handle_of(GI, board->gi[g].serial), call.code = OK;
    }
    return end(&call, "%d, %u", index_of(board), id);
}

API int nvmlGpuInstanceGetInfo(void *instance, gi_info_t *info) {
    struct call call = begin("nvmlGpuInstanceGetInfo", READS);
    const struct found found = found_by(&call, instance);
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
    const struct found found = found_by(call, instance);
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
    return end(&call, "%d@%u, %u", index_of(found.board), found.gi ? found.gi->start : 0, profile);
}

API int nvmlComputeInstanceDestroy(void *instance) {
    struct call call = begin("nvmlComputeInstanceDestroy", DESTROYS);
    const struct found found = found_by(&call, instance);
    const int index = index_of(found.board);
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
    const struct found found = found_by(&call, instance);
    if (call.code == OK && !found.ci) call.code = NOT_FOUND;
    if (call.code == OK)
        *info = (ci_info_t){handle_of(MIG_DEVICE, found.ci->serial), handle_of(GI, found.gi->serial), found.ci->id,
                            found.ci->profile, {found.ci->start, found.ci->size}};
    return end(&call, "");
}
