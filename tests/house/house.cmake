# The house's own tests: the rooms, the headers alone, the single header, what a consumer sees, hello, law 3's flags.

# finteam_house(NAME COMMAND…): a ctest test labelled house; exit 77 says that it was skipped, and why.
function(finteam_house name)
  add_test(NAME "house: ${name}" COMMAND ${ARGN})
  set_tests_properties("house: ${name}" PROPERTIES LABELS house SKIP_RETURN_CODE 77 TIMEOUT 600)
endfunction()
set(_python ${Python3_EXECUTABLE} -B)
set(_house ${CMAKE_CURRENT_LIST_DIR})

finteam_house("a room includes only rooms to its left" ${_python} ${PROJECT_SOURCE_DIR}/tools/check_rooms)
finteam_house("a planted violation of the rooms is found" ${_python} ${PROJECT_SOURCE_DIR}/tools/check_rooms --self-test)
finteam_house("the single header is what tools/amalgamate writes"
              ${_python} ${PROJECT_SOURCE_DIR}/tools/amalgamate --check)

finteam_house("README's table of speeds is that of the newest results" ${_python} ${PROJECT_SOURCE_DIR}/tools/bench_table
              --check)

finteam_house("a peer's rows stand beside ours, and what it needs is said"
              ${_python} ${_house}/gpu_peer.py ${PROJECT_SOURCE_DIR})

if(TARGET bench)
  finteam_house("the benches answer every question, in finite numbers"
                ${_python} ${_house}/bench.py $<TARGET_FILE:bench> ${CMAKE_CURRENT_BINARY_DIR}/bench-models)
endif()

find_program(FINTEAM_CLANG_FORMAT NAMES clang-format-14 clang-format)
if(FINTEAM_CLANG_FORMAT)
  finteam_house("the code is formatted" ${_python} ${_house}/format.py ${PROJECT_SOURCE_DIR} ${FINTEAM_CLANG_FORMAT})
else()
  finteam_skipped("house: the code is formatted" house "there is no clang-format")
endif()

# Every header compiles alone, twice in one file: a file per header, built with everything else.
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  file(GLOB_RECURSE _headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/include/*.hpp)
  set(_alone "")
  foreach(header ${_headers})
    string(MAKE_C_IDENTIFIER ${header} _id)
    file(CONFIGURE OUTPUT alone/${_id}.cpp CONTENT "#include <${header}>\n#include <${header}>\n" @ONLY)
    list(APPEND _alone ${CMAKE_CURRENT_BINARY_DIR}/alone/${_id}.cpp)
  endforeach()
  add_library(finteam_headers_alone OBJECT ${_alone})
  finteam_ours(finteam_headers_alone)
  target_compile_options(finteam_headers_alone PRIVATE -O0)
  finteam_house("every header compiles alone"
                ${CMAKE_COMMAND} --build ${PROJECT_BINARY_DIR} --target finteam_headers_alone)
endif()

# Law 3: a program that prints a hash of every op's bits, the same whatever a host's flags contract or unroll.
if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/backend/op_hash.cpp AND CMAKE_BUILD_TYPE STREQUAL "Release")
  function(finteam_op_hash isa)
    set(programs "")
    foreach(flags ${ARGN})
      string(REPLACE "," ";" options ${flags})
      string(MAKE_C_IDENTIFIER "op_hash_${isa}_${flags}" target)
      add_executable(${target} backend/op_hash.cpp)
      finteam_ours(${target} ${isa})
      target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
      target_compile_options(${target} PRIVATE ${options})
      list(APPEND programs $<TARGET_FILE:${target}>)
    endforeach()
    set(name "law 3: the bits of an op do not depend on -ffp-contract or -O (${isa})")
    add_test(NAME "${name}" COMMAND ${_python} ${_house}/same_output.py ${programs})
    set_tests_properties("${name}" PROPERTIES LABELS "law3" TIMEOUT 300)
  endfunction()
  finteam_op_hash(native -O2,-ffp-contract=off -O2,-ffp-contract=fast -O3,-ffp-contract=fast)
  if(FINTEAM_ISA_TESTS AND FINTEAM_RUNS_avx2)
    finteam_op_hash(avx2 -O2,-ffp-contract=off -O3,-ffp-contract=fast)
  endif()
  if(FINTEAM_ISA_TESTS AND FINTEAM_X86_64)
    finteam_op_hash(x86-64 -O2,-ffp-contract=off -O3,-ffp-contract=fast)
  endif()
endif()

if(FINTEAM_CUDA)
  get_target_property(_real finteam_cuda CUDA_ARCHITECTURES)
  list(FILTER _real EXCLUDE REGEX "-virtual$")
  list(LENGTH _real _architectures)
  finteam_house("no kernel spills a register" ${_python} ${_house}/spills.py ${PROJECT_BINARY_DIR}/kernels ${_architectures})
  set_property(TEST "house: no kernel spills a register" APPEND PROPERTY LABELS cuda)
else()
  finteam_skipped("house: no kernel spills a register" house "there is no CUDA compiler")
endif()

# What a consumer sees.
foreach(as find_package add_subdirectory)
  if(as STREQUAL "find_package" AND NOT FINTEAM_INSTALL)
    continue()
  endif()
  finteam_house("a consumer builds with ${as}"
    ${CMAKE_COMMAND} -DAS=${as} -DSOURCE=${PROJECT_SOURCE_DIR} -DBUILD=${PROJECT_BINARY_DIR}
    -DWORK=${CMAKE_CURRENT_BINARY_DIR}/consumer_${as} -DCOMPILER=${CMAKE_CXX_COMPILER} -DGENERATOR=${CMAKE_GENERATOR}
    -P ${_house}/consumer.cmake)
endforeach()

# The package's component cuda.
function(finteam_cuda_consumer as name)
  finteam_house("${name}"
    ${CMAKE_COMMAND} -DAS=${as} -DBUILD=${PROJECT_BINARY_DIR} -DWORK=${CMAKE_CURRENT_BINARY_DIR}/consumer_cuda_${as}
    -DCOMPILER=${CMAKE_CXX_COMPILER} -DGENERATOR=${CMAKE_GENERATOR} -P ${_house}/consumer_cuda.cmake)
  set_property(TEST "house: ${name}" APPEND PROPERTY LABELS cuda)
endfunction()
if(FINTEAM_INSTALL)
  finteam_cuda_consumer(missing "a component that was not built is refused by name")
endif()
if(FINTEAM_INSTALL AND FINTEAM_CUDA)
  finteam_cuda_consumer(built "a consumer builds with the component cuda")
else()
  finteam_skipped("house: a consumer builds with the component cuda" house "this build has no finteam::cuda")
endif()

# Hello, and the other examples.
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  finteam_house("README's hello, compiled as README says, prints what README says"
                ${_python} ${_house}/readme_hello.py ${PROJECT_SOURCE_DIR} ${CMAKE_CXX_COMPILER})
  if(TARGET hello)
    finteam_house("hello calls nothing that ends the process or prints"
                  ${_python} ${_house}/symbols.py ${CMAKE_NM} $<TARGET_OBJECTS:hello>)
    set_property(TEST "house: hello calls nothing that ends the process or prints" APPEND PROPERTY LABELS law4)
  endif()
endif()
if(TARGET make_delta)
  set(_mini ${PROJECT_SOURCE_DIR}/examples/mini-team)
  finteam_house("make_delta says how far a difference of 2 bits is off"
                $<TARGET_FILE:make_delta> ${_mini}/macro ${_mini}/micro ${CMAKE_CURRENT_BINARY_DIR}/delta --bits 2)
  set_property(TEST "house: make_delta says how far a difference of 2 bits is off"
               PROPERTY PASS_REGULAR_EXPRESSION "0\\.351[01]  all")
endif()
if(FINTEAM_EXAMPLES)
  file(GLOB _transcripts CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/expected/*.txt)
  foreach(transcript ${_transcripts})
    cmake_path(GET transcript STEM name)
    finteam_house("the example ${name} prints what it should"
                  ${_python} ${_house}/example_output.py ${PROJECT_SOURCE_DIR} $<TARGET_FILE:${name}> ${transcript})
  endforeach()
endif()
