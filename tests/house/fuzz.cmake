# Fuzz targets (tests/fuzz/*_fuzz.cpp, each an LLVMFuzzerTestOneInput). With FINTEAM_FUZZ they are libFuzzer programs;
# in the tests each replays every refused file, whole, cut and damaged, under the sanitizers.
file(GLOB _fuzz_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/*_fuzz.cpp)
foreach(source ${_fuzz_sources})
  cmake_path(GET source STEM name)
  if(FINTEAM_FUZZ)
    add_executable(${name} ${source})
    finteam_ours(${name})
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer,address,undefined)
  endif()
  if(FINTEAM_TESTS)
    add_executable(${name}_replay ${source} ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/replay.cpp)
    finteam_ours(${name}_replay)
    if(FINTEAM_ASAN_PARSERS)
      target_compile_options(${name}_replay PRIVATE ${FINTEAM_SANITIZE} -O1 -g1 -D_GLIBCXX_ASSERTIONS)
      target_link_options(${name}_replay PRIVATE ${FINTEAM_SANITIZE})
    endif()
    add_test(NAME "fuzz: ${name} survives every refused file, cut and damaged"
             COMMAND ${name}_replay ${CMAKE_CURRENT_SOURCE_DIR}/refused)
    set_tests_properties("fuzz: ${name} survives every refused file, cut and damaged"
                         PROPERTIES LABELS "law5;fuzz" TIMEOUT 300)
  endif()
endforeach()
