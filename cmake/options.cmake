# Warnings and sanitizers for every target of ours. No -march and no -ffast-math here: instruction sets are chosen at run
# time, and only the files under kernels/cpu that are named for one get its flags.
add_library(pkv_options INTERFACE)
target_compile_options(pkv_options INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wno-missing-field-initializers)
target_include_directories(pkv_options INTERFACE ${PROJECT_SOURCE_DIR})
if(PKV_SANITIZE)
  add_compile_options(-fsanitize=${PKV_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${PKV_SANITIZE})
  if(PKV_FUZZ)
    add_compile_options(-fno-sanitize-recover=all)  # a finding ends the run
  endif()
endif()

find_program(CCACHE ccache)
foreach(language CXX CUDA)
  if(CCACHE AND NOT CMAKE_${language}_COMPILER_LAUNCHER)
    set(CMAKE_${language}_COMPILER_LAUNCHER ${CCACHE})
  endif()
endforeach()

# A library of one folder of the house.
function(pkv_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC pkv_options ${ARG_LINK})
endfunction()

# What scripts/test builds alone: with the presets of these names the tests that say so below, with --long the long ones.
add_custom_target(asan_tests)
add_custom_target(tsan_tests)
add_custom_target(asan_long_tests)
add_custom_target(tsan_long_tests)
add_custom_target(long_tests)

# A GoogleTest program and its ctest entry: the files of a test folder. LABEL groups them: unit, kernels, golden, integration; a long
# one has an entry only where PKV_LONG_MODEL_PATH is set (scripts/test --long).
# SANITIZERS: asan, tsan, or both, with which every run of scripts/test repeats it. scripts/test --sanitizers runs all others with
# AddressSanitizer too, which is the label asan_long; and with ThreadSanitizer those that say tsan_long: all that link neither gRPC nor
# the HTTP server, but for the simulated GPU, whose fibers it does not know.
function(pkv_test name)
  cmake_parse_arguments(ARG "" "LABEL" "SOURCES;LINK;SANITIZERS" ${ARGN})
  if(NOT "asan" IN_LIST ARG_SANITIZERS)
    list(APPEND ARG_SANITIZERS asan_long)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE pkv_options ${ARG_LINK} GTest::gmock GTest::gtest_main)
  if(ARG_LABEL STREQUAL "long")
    add_dependencies(long_tests ${name})
    if(NOT PKV_LONG_MODEL_PATH)
      return()
    endif()
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set(labels ${ARG_LABEL} ${ARG_SANITIZERS})
  set_tests_properties(${name} PROPERTIES LABELS "${labels}")
  foreach(sanitizer ${ARG_SANITIZERS})
    add_dependencies(${sanitizer}_tests ${name})
  endforeach()
endfunction()
