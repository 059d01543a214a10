// The beginning and the end of what callgrind is to count, as functions that Python can call.
// Outside valgrind they do nothing.
#include <valgrind/callgrind.h>

void begin_counting(void) {
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

// Writes what was counted since, into a file of its own.
void end_counting(void) {
    CALLGRIND_DUMP_STATS;
    CALLGRIND_STOP_INSTRUMENTATION;
}
