# Flags per instruction set: one file is compiled for one set, nothing else in the project uses these flags.
file(GLOB dil_avx2 CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/x86_avx2*.c)
file(GLOB dil_avx512 CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/x86_avx512*.c)
set_source_files_properties(${dil_avx2} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c;-mbmi2")
set_source_files_properties(${dil_avx512} PROPERTIES COMPILE_OPTIONS
  "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-mavx512vbmi;-mavx2;-mfma;-mf16c;-mbmi2;-mprfchw;-mprefer-vector-width=512")
file(GLOB dil_avx512_bf16 CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/x86_avx512_bf16*.c)
set_property(SOURCE ${dil_avx512_bf16} APPEND PROPERTY COMPILE_OPTIONS "-mavx512bf16")

# Unrolled products take a sanitizer minutes to compile at -O2, most of them for registers; at -O1 they are as checked.
if(DIL_SANITIZE)
  set_property(SOURCE ${dil_avx2} ${dil_avx512} APPEND PROPERTY COMPILE_OPTIONS "-O1")
  if(CMAKE_C_COMPILER_ID STREQUAL GNU)
    set_property(SOURCE ${dil_avx2} ${dil_avx512} APPEND PROPERTY COMPILE_OPTIONS "-fira-algorithm=priority;-fira-region=one")
  endif()
endif()

# What was measured of kernels and steps holds for their code and its compiler only: a name that changes with them.
file(GLOB dil_timed CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/*.[ch] ${CMAKE_SOURCE_DIR}/src/compute/*.[ch])
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${dil_timed})
set(dil_build "${CMAKE_C_COMPILER_ID} ${CMAKE_C_COMPILER_VERSION} ${CMAKE_BUILD_TYPE} ${CMAKE_C_FLAGS}")
foreach(file ${dil_timed})
  file(SHA256 ${file} sum)
  string(APPEND dil_build " ${sum}")
endforeach()
string(SHA256 dil_build "${dil_build}")
string(SUBSTRING ${dil_build} 0 16 dil_build)
set_property(SOURCE ${CMAKE_SOURCE_DIR}/src/kernels/dispatch.c APPEND PROPERTY COMPILE_DEFINITIONS "DIL_BUILD=\"${dil_build}\"")
