# Man pages: `dil help --json` -> scripts/make_man.py -> scdoc -> share/man/man1, and share/man/tr/man1 for the Turkish ones. Without scdoc
# (apt install scdoc) or where the command cannot run on this machine there are none.
find_program(DIL_SCDOC scdoc)
find_program(DIL_MAN_PYTHON NAMES python3 python)
if(NOT DIL_SCDOC OR NOT DIL_MAN_PYTHON OR CMAKE_CROSSCOMPILING)
  message(STATUS "no scdoc or python3: no man pages")
  return()
endif()
set(dil_man_stamp ${CMAKE_BINARY_DIR}/share/man/.made)
add_custom_command(OUTPUT ${dil_man_stamp}
  COMMAND ${DIL_MAN_PYTHON} ${CMAKE_SOURCE_DIR}/scripts/make_man.py --binary $<TARGET_FILE:dil> --output ${CMAKE_BINARY_DIR}/share/man
  COMMAND ${CMAKE_COMMAND} -E touch ${dil_man_stamp}
  DEPENDS dil ${dil_catalog} ${CMAKE_SOURCE_DIR}/scripts/make_man.py
  COMMENT "Man pages"
  VERBATIM)
add_custom_target(dil_man ALL DEPENDS ${dil_man_stamp})
install(DIRECTORY ${CMAKE_BINARY_DIR}/share/man/ DESTINATION ${CMAKE_INSTALL_MANDIR} PATTERN .made EXCLUDE)
