# Libraries from the system, each as an interface target that modules name.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

add_library(dil_system INTERFACE)
target_link_libraries(dil_system INTERFACE Threads::Threads m)

# dil_library(NAME PKG): interface target dil_NAME over a pkg-config package, required.
function(dil_library name package)
  pkg_check_modules(${name} REQUIRED IMPORTED_TARGET ${package})
  add_library(dil_${name} INTERFACE)
  target_link_libraries(dil_${name} INTERFACE PkgConfig::${name})
endfunction()

dil_library(pcre2 libpcre2-8)
dil_library(utf8proc libutf8proc)
dil_library(xxhash libxxhash)
dil_library(jansson jansson)
dil_library(curl libcurl)
dil_library(gnutls gnutls)
dil_library(libedit libedit)

# The machine's topology. Without hwloc src/machine asks the system for less.
pkg_check_modules(hwloc QUIET IMPORTED_TARGET hwloc>=2.4)
if(hwloc_FOUND)
  add_library(dil_hwloc INTERFACE)
  target_link_libraries(dil_hwloc INTERFACE PkgConfig::hwloc)
  target_compile_definitions(dil_hwloc INTERFACE DIL_HAVE_HWLOC=1)
else()
  message(STATUS "hwloc not found: every core counts as one of the same kind")
endif()

# Reads beside the computation. Without liburing (or where the system forbids io_uring) a few threads read with pread.
set(DIL_URING AUTO CACHE STRING "Read experts with io_uring: AUTO (when liburing is there), ON or OFF")
if(NOT DIL_URING STREQUAL "OFF")
  if(DIL_URING STREQUAL "AUTO")
    pkg_check_modules(uring QUIET IMPORTED_TARGET liburing>=2.0)
  else()
    pkg_check_modules(uring REQUIRED IMPORTED_TARGET liburing>=2.0)
  endif()
  if(uring_FOUND)
    target_link_libraries(dil_system INTERFACE PkgConfig::uring)
    target_compile_definitions(dil_system INTERFACE DIL_HAVE_URING=1)
  else()
    message(STATUS "liburing not found: experts are read by threads")
  endif()
endif()

# The Rust bridge: one static library.
if(DIL_BRIDGE)
  find_program(DIL_CARGO cargo HINTS $ENV{HOME}/.cargo/bin)
  if(NOT DIL_CARGO OR NOT EXISTS ${CMAKE_SOURCE_DIR}/bridge/Cargo.toml)
    message(STATUS "cargo or bridge/Cargo.toml not found: building without the bridge (built-in chat formats only)")
    set(DIL_BRIDGE OFF)
  endif()
endif()
if(DIL_BRIDGE)
  include(cmake/bridge.cmake)
endif()
