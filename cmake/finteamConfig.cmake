# find_package(finteam): the target finteam::finteam; with COMPONENTS cuda, finteam::cuda as well.
include(${CMAKE_CURRENT_LIST_DIR}/finteamDependencies.cmake)
if(DEFINED finteam_FOUND AND NOT finteam_FOUND)  # a dependency is missing: find_dependency has said which
  return()
endif()
include(${CMAKE_CURRENT_LIST_DIR}/finteamTargets.cmake)
get_target_property(_finteam_xsimd xsimd INTERFACE_INCLUDE_DIRECTORIES)  # headers only: Debian 12's target links xtl
target_include_directories(finteam::finteam SYSTEM INTERFACE ${_finteam_xsimd})
foreach(_component ${finteam_FIND_COMPONENTS})
  if(_component STREQUAL "cuda" AND EXISTS ${CMAKE_CURRENT_LIST_DIR}/finteamCudaTargets.cmake)
    find_dependency(CUDAToolkit 12)
    include(${CMAKE_CURRENT_LIST_DIR}/finteamCudaTargets.cmake)
    set(finteam_cuda_FOUND TRUE)
  elseif(finteam_FIND_REQUIRED_${_component})
    set(finteam_FOUND FALSE)
    set(finteam_NOT_FOUND_MESSAGE "this build of finteam has no component ${_component} (cuda: FINTEAM_CUDA=ON)")
  endif()
endforeach()
