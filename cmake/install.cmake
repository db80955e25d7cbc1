# cmake --install build/release --prefix /usr/local [--component NAME] [--strip]. Components: programs, config, docs, proto,
# systemd, completion; without --component all of them, and never the tests. Settings that are there already are not overwritten.
include(GNUInstallDirs)

install(TARGETS pyramidkv-server pyramidkv pkv-calibrate RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT programs)

install(DIRECTORY config DESTINATION ${CMAKE_INSTALL_DATADIR}/pyramidkv COMPONENT config
        FILES_MATCHING PATTERN "*.yaml" PATTERN "*.lanes")
install(DIRECTORY proto/pyramidkv DESTINATION ${CMAKE_INSTALL_DATADIR}/pyramidkv/proto COMPONENT proto
        FILES_MATCHING PATTERN "*.proto")
install(FILES README.md docs/benchmarking.md docs/first_five_minutes.md docs/http.md docs/life_of_a_request.md docs/metrics.md docs/policies.md
              docs/runbook.md docs/scaling.md docs/security.md
        DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT docs)
install(FILES deploy/completion/pyramidkv.bash RENAME pyramidkv COMPONENT completion
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES deploy/completion/pyramidkv.bash RENAME pyramidkv-server COMPONENT completion
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES deploy/completion/pyramidkv.zsh RENAME _pyramidkv COMPONENT completion
        DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES deploy/completion/pyramidkv.fish COMPONENT completion
        DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES deploy/completion/pyramidkv.fish RENAME pyramidkv-server.fish COMPONENT completion
        DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES deploy/systemd/tls.conf DESTINATION ${CMAKE_INSTALL_DATADIR}/pyramidkv/systemd COMPONENT systemd)

# What the unit and the settings hold of the prefix is known only now, so these are made by a script of the installation.
foreach(component config docs systemd)
  install(CODE "
    set(source_dir \"${PROJECT_SOURCE_DIR}\")
    set(bindir \"${CMAKE_INSTALL_BINDIR}\")
    set(docdir \"${CMAKE_INSTALL_DOCDIR}\")
    set(datadir \"${CMAKE_INSTALL_DATADIR}\")
    set(component ${component})
    set(boost_package libboost${Boost_VERSION_MAJOR}.${Boost_VERSION_MINOR}-dev)
    include(\"${PROJECT_SOURCE_DIR}/cmake/install_files.cmake\")" COMPONENT ${component})
endforeach()
