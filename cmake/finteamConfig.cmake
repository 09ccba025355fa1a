# find_package(finteam): the target finteam::finteam.
include(${CMAKE_CURRENT_LIST_DIR}/finteamDependencies.cmake)
if(DEFINED finteam_FOUND AND NOT finteam_FOUND)  # a dependency is missing: find_dependency has said which
  return()
endif()
include(${CMAKE_CURRENT_LIST_DIR}/finteamTargets.cmake)
get_target_property(_finteam_xsimd xsimd INTERFACE_INCLUDE_DIRECTORIES)  # headers only: Debian 12's target links xtl
target_include_directories(finteam::finteam SYSTEM INTERFACE ${_finteam_xsimd})
