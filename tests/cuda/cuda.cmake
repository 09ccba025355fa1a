#The CUDA backend's tests, over kernels that run on the host (tests/simt), once more for the sanitizers; and, with
#FINTEAM_CUDA, as a program for a GPU, whose tests are there with FINTEAM_GPU.
find_path(FINTEAM_BOOST_CONTEXT_INCLUDE boost/context/fiber.hpp)
find_library(FINTEAM_BOOST_CONTEXT boost_context)
add_custom_target(cuda)  # all that the presets cuda and gpu build
if(NOT FINTEAM_BOOST_CONTEXT_INCLUDE OR NOT FINTEAM_BOOST_CONTEXT)
  finteam_skipped("cuda: tests on the host" cuda "Boost.Context (libboost-context-dev) is not there")
  return()
endif()

file(GLOB _kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/*.cu)
list(FILTER _kernels EXCLUDE REGEX "/(device|gemm)\\.cu$")
file(GLOB _cuda_tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda/*_test.cpp)
set(_cuda_definitions FINTEAM_TEST_CUDA)

# The kernels as C++: unlike the language of the same files under nvcc, a copy of each that includes it.
set(_emulated "")
foreach(kernel ${_kernels})
  cmake_path(GET kernel STEM name)
  file(CONFIGURE OUTPUT simt/${name}.cpp CONTENT "#include \"${kernel}\"\n" @ONLY)
  list(APPEND _emulated ${CMAKE_CURRENT_BINARY_DIR}/simt/${name}.cpp)
endforeach()

# finteam_emulated(NAME [FLAGS…]): finteam::cuda on the host.
function(finteam_emulated name)
  add_library(${name} STATIC ${_emulated} simt/emulated.cpp simt/device.cpp)
  target_compile_features(${name} PUBLIC cxx_std_20)
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/kernels
                                            ${CMAKE_CURRENT_SOURCE_DIR})
  target_include_directories(${name} SYSTEM PUBLIC ${FINTEAM_BOOST_CONTEXT_INCLUDE})
  target_link_libraries(${name} PUBLIC ${FINTEAM_BOOST_CONTEXT} PRIVATE finteam_warnings)
  target_compile_options(${name} PRIVATE -Wno-unknown-pragmas -ffp-contract=off $<$<CONFIG:Release>:-O2> ${ARGN})
endfunction()

finteam_emulated(finteam_emulated_cuda)
finteam_test(cuda native "cuda: " cuda "${_cuda_tests}")
target_link_libraries(test_cuda PRIVATE finteam_emulated_cuda)
target_compile_definitions(test_cuda PRIVATE ${_cuda_definitions})
add_dependencies(cuda test_cuda)
if(FINTEAM_ASAN_PARSERS)
  # whole decoders run the same kernels, for minutes
  list(FILTER _cuda_tests EXCLUDE REGEX "/(decoder|parity)_test\\.cpp$")
  finteam_emulated(finteam_emulated_cuda_asan ${FINTEAM_SANITIZE} -O1 -g1)
  finteam_test(asan_cuda native "asan.cuda: " "cuda,asan" "${_cuda_tests}" ${FINTEAM_SANITIZE} -O1 -g1 -D_GLIBCXX_ASSERTIONS)
  target_link_libraries(test_asan_cuda PRIVATE finteam_emulated_cuda_asan)
  target_compile_definitions(test_asan_cuda PRIVATE ${_cuda_definitions})
endif()

if(FINTEAM_CUDA)
  add_dependencies(cuda finteam_cuda)
endif()
