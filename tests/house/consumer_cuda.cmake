# cmake -DAS=built|missing -DBUILD=… -DWORK=… -DCOMPILER=… -DGENERATOR=… -P consumer_cuda.cmake
# Installs the package. built: a project that asks for the component cuda is configured, built and run. missing: without
# what only a build with CUDA installs, asking for it fails, with words that say so.
file(REMOVE_RECURSE ${WORK})
execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
set(configure ${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/consumer_cuda -B ${WORK}/build -G ${GENERATOR}
              -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_BUILD_TYPE=Debug -DCMAKE_PREFIX_PATH=${WORK}/prefix
              -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF)
if(AS STREQUAL "built")
  execute_process(COMMAND ${configure} COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${CMAKE_COMMAND} --build ${WORK}/build COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${WORK}/build/consumer COMMAND_ERROR_IS_FATAL ANY)
  return()
endif()
file(GLOB component ${WORK}/prefix/share/cmake/finteam/finteamCudaTargets*.cmake)
if(component)
  file(REMOVE ${component})
endif()
execute_process(COMMAND ${configure} RESULT_VARIABLE status OUTPUT_QUIET ERROR_VARIABLE said)
string(REGEX REPLACE "[ \n]+" " " said "${said}")
message("${said}")
if(status EQUAL 0 OR NOT said MATCHES "this build of finteam has no component cuda \\(cuda: FINTEAM_CUDA=ON\\)")
  message(FATAL_ERROR "status ${status}")
endif()
