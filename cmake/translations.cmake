# Texts of the command in other languages: po/LANG.po -> share/locale/LANG/LC_MESSAGES/dil.mo beside bin/, in the build tree as in an
# installation, where the command looks for it relative to itself. Without msgfmt the command speaks English only.
find_program(DIL_MSGFMT msgfmt)
if(NOT DIL_MSGFMT)
  message(STATUS "msgfmt not found: the command speaks English only (apt install gettext)")
  return()
endif()
set(dil_catalog ${CMAKE_BINARY_DIR}/share/locale/tr/LC_MESSAGES/dil.mo)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/share/locale/tr/LC_MESSAGES)
add_custom_command(OUTPUT ${dil_catalog}
  COMMAND ${DIL_MSGFMT} --check-format --output-file=${dil_catalog} ${CMAKE_SOURCE_DIR}/po/tr.po
  DEPENDS ${CMAKE_SOURCE_DIR}/po/tr.po
  COMMENT "Translations: po/tr.po"
  VERBATIM)
add_custom_target(dil_translations ALL DEPENDS ${dil_catalog})
install(FILES ${dil_catalog} DESTINATION ${CMAKE_INSTALL_DATADIR}/locale/tr/LC_MESSAGES)
