# Headers, and a package that find_package(finteam) understands. Nothing here depends on the machine it was built on.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(_package_dir ${CMAKE_INSTALL_DATADIR}/cmake/finteam)
install(DIRECTORY include/finteam TYPE INCLUDE FILES_MATCHING PATTERN "*.hpp")
install(TARGETS finteam EXPORT finteamTargets)
install(EXPORT finteamTargets NAMESPACE finteam:: DESTINATION ${_package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/finteamConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES cmake/finteamConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/finteamConfigVersion.cmake
        DESTINATION ${_package_dir})
install(FILES cmake/dependencies.cmake DESTINATION ${_package_dir} RENAME finteamDependencies.cmake)
