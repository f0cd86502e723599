/* The engine's options as the public header has them, for all calls that open models. */
#include "api/options.h"

#include "api/arguments.h"

static dil_status kv_type(const char *name, dil_type *out, dil_error *err)
{
    dil_type type = DIL_TYPE_F16;
    if (name && (!format_find(name, &type) || kv_page_bytes(type, 32) == 0))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "kv_type: wanted f32, f16, bf16, q8_0 or q4_0, found '%s'", name);
    *out = type;
    return DIL_OK;
}

dil_status take_engine_options(engine_options *out, const dil_engine_options *options, dil_error *err)
{
    dil_engine_options o = dil_engine_options_default();
    engine_options eo = engine_options_default();
    DIL_TRY(take_options(&o, sizeof o, options, options ? options->struct_size : 0, "dil_engine_options", err));
    DIL_TRY(kv_type(o.kv_type, &eo.type_k, err));
    if (!(o.route_mass >= 0 && o.route_mass <= 1) || (o.route_local && o.route_mass > 0))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "route_mass: wanted 0..1, and 0 with route_local, found %g", (double)o.route_mass);
    eo.type_v = eo.type_k;
    eo.n_threads = o.n_threads;
    eo.context = o.n_context;
    eo.n_sessions = o.n_sessions;
    eo.micro_batch = o.n_micro_batch;
    eo.max_outputs = o.n_sessions > 8 ? o.n_sessions : 0;
    eo.memory_bytes = o.memory_bytes;
    eo.cpu = o.cpu_level;
    eo.no_pack_cache = o.no_pack_cache;
    eo.lone = true;
    eo.route.mode = o.route_local ? ROUTE_LOCAL : o.route_mass > 0 ? ROUTE_CACHE : ROUTE_EXACT;
    eo.route.mass = o.route_mass;
    eo.experts_memory = o.experts_memory;
    eo.progress = o.progress;
    eo.user = o.user;
    *out = eo;
    return DIL_OK;
}
