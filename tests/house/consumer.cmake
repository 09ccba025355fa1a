# cmake -DAS=find_package|add_subdirectory -DSOURCE=… -DBUILD=… -DWORK=… -DCOMPILER=… -DGENERATOR=… -P consumer.cmake
# Configures, builds and runs the consumer project against the installed package, or against the source folder.
file(REMOVE_RECURSE ${WORK})
set(arguments -S ${CMAKE_CURRENT_LIST_DIR}/consumer -B ${WORK}/build -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${COMPILER}
              -DFINTEAM_AS=${AS} -DFINTEAM_FOLDER=${SOURCE} -DCMAKE_BUILD_TYPE=Debug)
if(AS STREQUAL "find_package")
  execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix OUTPUT_QUIET
                  COMMAND_ERROR_IS_FATAL ANY)
  list(APPEND arguments -DCMAKE_PREFIX_PATH=${WORK}/prefix -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF)
endif()
execute_process(COMMAND ${CMAKE_COMMAND} ${arguments} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${WORK}/build COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${WORK}/build/consumer COMMAND_ERROR_IS_FATAL ANY)
