# The Rust bridge: bridge/ -> libdil_bridge.a, target dil_bridge. The crates are fetched at configure time (their versions
# and hashes are fixed by bridge/Cargo.lock), so that building needs no network. Without cargo: -DDIL_BRIDGE=OFF.
set(dil_bridge_dir ${CMAKE_SOURCE_DIR}/bridge)
set(dil_bridge_target ${CMAKE_BINARY_DIR}/bridge)
set(dil_bridge_lib ${dil_bridge_target}/release/libdil_bridge.a)

# Already on this machine? Only otherwise is the registry asked.
execute_process(
  COMMAND ${DIL_CARGO} fetch --locked --offline --manifest-path ${dil_bridge_dir}/Cargo.toml
  RESULT_VARIABLE dil_fetch_failed OUTPUT_QUIET ERROR_QUIET)
if(dil_fetch_failed)
  message(STATUS "bridge: fetching crates")
  execute_process(
    COMMAND ${DIL_CARGO} fetch --locked --manifest-path ${dil_bridge_dir}/Cargo.toml
    RESULT_VARIABLE dil_fetch_failed ERROR_VARIABLE dil_fetch_error OUTPUT_QUIET)
endif()
if(dil_fetch_failed)
  message(FATAL_ERROR
    "The chat template bridge needs Rust crates that are neither on this machine nor could be fetched from crates.io:\n"
    "${dil_fetch_error}\n"
    "Either make the registry reachable (proxy, mirror in ~/.cargo/config.toml, or 'cargo vendor'), or build without the "
    "bridge: cmake -DDIL_BRIDGE=OFF (chat then uses the built-in formats).")
endif()

file(GLOB dil_bridge_sources CONFIGURE_DEPENDS ${dil_bridge_dir}/src/*.rs)
add_custom_command(
  OUTPUT ${dil_bridge_lib}
  COMMAND ${CMAKE_COMMAND} -E env CARGO_TARGET_DIR=${dil_bridge_target}
          ${DIL_CARGO} build --release --locked --offline --quiet --manifest-path ${dil_bridge_dir}/Cargo.toml
  DEPENDS ${dil_bridge_sources} ${dil_bridge_dir}/Cargo.toml ${dil_bridge_dir}/Cargo.lock
  COMMENT "Building the Rust bridge"
  VERBATIM)
add_custom_target(dil_bridge_build DEPENDS ${dil_bridge_lib})

add_library(dil_bridge INTERFACE)
add_dependencies(dil_bridge dil_bridge_build)
target_include_directories(dil_bridge SYSTEM INTERFACE ${dil_bridge_dir})
target_compile_definitions(dil_bridge INTERFACE DIL_HAVE_BRIDGE=1)
target_link_libraries(dil_bridge INTERFACE ${dil_bridge_lib} Threads::Threads ${CMAKE_DL_LIBS} m)
