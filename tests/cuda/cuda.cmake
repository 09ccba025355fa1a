# The CUDA backend's tests, over kernels that run on the host (tests/simt), once more for the sanitizers; and, with
# FINTEAM_CUDA, as a program for a GPU, whose tests are there with FINTEAM_GPU.
add_custom_target(cuda)  # all that the presets cuda and gpu build
file(GLOB _cuda_tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda/*_test.cpp)

# --- on the host -----------------------------------------------------------------------------------------------------
file(GLOB _kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/*.cu)
list(FILTER _kernels EXCLUDE REGEX "/(device|gemm)\\.cu$")

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

# finteam_emulated_test(NAME PREFIX LABELS SOURCES [FLAGS…]): the tests over such kernels.
function(finteam_emulated_test name prefix labels sources)
  finteam_emulated(finteam_emulated_${name} ${ARGN})
  finteam_test(${name} native ${prefix} ${labels} "${sources}" ${ARGN})
  target_link_libraries(test_${name} PRIVATE finteam_emulated_${name})
  target_compile_definitions(test_${name} PRIVATE FINTEAM_TEST_CUDA)
endfunction()

find_path(FINTEAM_BOOST_CONTEXT_INCLUDE boost/context/fiber.hpp)
find_library(FINTEAM_BOOST_CONTEXT boost_context)
if(FINTEAM_BOOST_CONTEXT_INCLUDE AND FINTEAM_BOOST_CONTEXT)
  # The kernels as C++: unlike the language of the same files under nvcc, a copy of each that includes it.
  set(_emulated "")
  foreach(kernel ${_kernels})
    cmake_path(GET kernel STEM name)
    file(CONFIGURE OUTPUT simt/${name}.cpp CONTENT "#include \"${kernel}\"\n" @ONLY)
    list(APPEND _emulated ${CMAKE_CURRENT_BINARY_DIR}/simt/${name}.cpp)
  endforeach()
  finteam_emulated_test(cuda "cuda: " cuda "${_cuda_tests}")
  add_dependencies(cuda test_cuda)
  find_package(CLI11 QUIET)
  if(FINTEAM_BENCH AND CLI11_FOUND)
    # The benches of a GPU, as one file: their times are nobody's, but what they check and keep is tried.
    file(GLOB _bench CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bench/gpu*.cpp)
    list(FILTER _bench EXCLUDE REGEX "/gpu_device\\.cpp$")
    add_executable(bench_emulated ${_bench} ${PROJECT_SOURCE_DIR}/bench/harness.cpp cuda/bench_device.cpp)
    finteam_ours(bench_emulated)
    target_link_libraries(bench_emulated PRIVATE finteam_emulated_cuda CLI11::CLI11)
    target_compile_definitions(bench_emulated PRIVATE FINTEAM_BENCH_SOURCE="" FINTEAM_BENCH_FLAGS="")
    target_compile_options(bench_emulated PRIVATE -O0 $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
    set_target_properties(bench_emulated PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
    add_dependencies(cuda bench_emulated)
    add_test(NAME "cuda: the benches check, keep and go on" COMMAND ${Python3_EXECUTABLE} -B
             ${CMAKE_CURRENT_LIST_DIR}/bench.py $<TARGET_FILE:bench_emulated> ${CMAKE_CURRENT_BINARY_DIR}/bench-emulated)
    set_tests_properties("cuda: the benches check, keep and go on" PROPERTIES LABELS cuda TIMEOUT 300)
  endif()
  if(FINTEAM_ASAN_PARSERS)
    # whole decoders run the same kernels, for minutes
    set(_short_tests ${_cuda_tests})
    list(FILTER _short_tests EXCLUDE REGEX "/(decoder|parity)_test\\.cpp$")
    finteam_emulated_test(asan_cuda "asan.cuda: " "cuda,asan" "${_short_tests}" ${FINTEAM_SANITIZE} -O1 -g1 -D_GLIBCXX_ASSERTIONS)
  endif()
else()
  finteam_skipped("cuda: tests on the host" cuda "Boost.Context (libboost-context-dev) is not there")
endif()

# --- on a GPU --------------------------------------------------------------------------------------------------------
if(NOT FINTEAM_CUDA)
  return()
endif()
add_dependencies(cuda finteam_cuda)
finteam_test(no_gpu native "cuda: " cuda cuda/no_gpu.cpp)
target_link_libraries(test_no_gpu PRIVATE finteam::cuda)
add_dependencies(cuda test_no_gpu)

# Tests that include a kernel's own header call it on the host, with the host's memory: no GPU could run them.
set(_gpu_tests "")
foreach(source ${_cuda_tests})
  file(STRINGS ${source} _of_kernels LIMIT_COUNT 1 REGEX "^#include [<\"](simt/.*|[a-z_]+\\.cuh)[>\"]")
  if(NOT _of_kernels)
    list(APPEND _gpu_tests ${source})
  endif()
endforeach()
finteam_test_program(gpu native "${_gpu_tests}")
target_link_libraries(test_gpu PRIVATE finteam::cuda)
target_compile_definitions(test_gpu PRIVATE FINTEAM_TEST_CUDA)
add_dependencies(cuda test_gpu)
if(FINTEAM_GPU)
  finteam_test_cases(gpu "gpu: " "cuda,gpu")
else()
  set_target_properties(test_gpu PROPERTIES EXCLUDE_FROM_ALL ON)  # the preset cuda compiles it
  finteam_skipped("gpu: tests on a GPU" cuda "./check --gpu runs them, with FINTEAM_GPU=ON")
  set_property(TEST "gpu: tests on a GPU" APPEND PROPERTY LABELS gpu)
endif()
