/* Threads of our own: they sleep unless there is work, and none is taken for alive after a fork. */
#ifndef AB_THREADS_H
#define AB_THREADS_H

#include <stdint.h>

/* Call task(job, number, worker) for every number below `tasks`, on up to `threads` threads, this one among
 * them; `worker`, below `threads`, is another on each. Where the threads are at work for another caller,
 * this one does all by itself. */
void ab_parallel(int32_t threads, int32_t tasks, void (*task)(void *job, int32_t number, int32_t worker),
                 void *job);

/* Threads that are kept. */
int32_t ab_parallel_threads(void);

#endif
