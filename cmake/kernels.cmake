# Flags per instruction set: one file is compiled for one set, nothing else in the project uses these flags.
file(GLOB dil_avx2 CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/x86_avx2*.c)
file(GLOB dil_avx512 CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/x86_avx512*.c)
set_source_files_properties(${dil_avx2} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c;-mbmi2")
set_source_files_properties(${dil_avx512} PROPERTIES COMPILE_OPTIONS
  "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-mavx512vbmi;-mavx2;-mfma;-mf16c;-mbmi2;-mprfchw;-mprefer-vector-width=512")
file(GLOB dil_avx512_bf16 CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/x86_avx512_bf16*.c)
set_property(SOURCE ${dil_avx512_bf16} APPEND PROPERTY COMPILE_OPTIONS "-mavx512bf16")
