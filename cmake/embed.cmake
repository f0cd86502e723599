# Files of other languages inside a library: dil_embed(TARGET FILE SYMBOL) makes of FILE
#     extern const unsigned char SYMBOL[];   its bytes
#     extern const size_t SYMBOL_size;       how many
# again whenever the file changes.
function(dil_embed target file symbol)
  set(source ${CMAKE_BINARY_DIR}/embedded/${symbol}.c)
  add_custom_command(
    OUTPUT ${source}
    COMMAND ${CMAKE_COMMAND} -DIN=${file} -DOUT=${source} -DSYMBOL=${symbol} -P ${CMAKE_SOURCE_DIR}/cmake/embed_file.cmake
    DEPENDS ${file} ${CMAKE_SOURCE_DIR}/cmake/embed_file.cmake
    COMMENT "Embedding ${symbol}"
    VERBATIM)
  target_sources(${target} PRIVATE ${source})
endfunction()
