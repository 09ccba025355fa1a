# find_package(finteam): the target finteam::finteam.
include(${CMAKE_CURRENT_LIST_DIR}/finteamDependencies.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/finteamTargets.cmake)
