#include "threads.h"

#include <stdatomic.h>
#include <stddef.h>

#define MOST_THREADS 256

#if defined(_WIN32)
#include <windows.h>
typedef SRWLOCK lock_t;
typedef CONDITION_VARIABLE signal_t;
#define LOCK_INIT SRWLOCK_INIT
#define SIGNAL_INIT CONDITION_VARIABLE_INIT
static void lock(lock_t *l) { AcquireSRWLockExclusive(l); }
static void unlock(lock_t *l) { ReleaseSRWLockExclusive(l); }
static void wait(signal_t *s, lock_t *l) { SleepConditionVariableSRW(s, l, INFINITE, 0); }
static void wake(signal_t *s) { WakeAllConditionVariable(s); }
static void work(void);
static DWORD WINAPI begin(LPVOID unused) {
  (void)unused;
  work();
  return 0;
}
static int spawn(void) {
  HANDLE thread = CreateThread(NULL, 0, begin, NULL, 0, NULL);
  if (thread) CloseHandle(thread);
  return thread != NULL;
}
static void watch_forks(void) {}
#else
#include <pthread.h>
#include <signal.h>
typedef pthread_mutex_t lock_t;
typedef pthread_cond_t signal_t;
#define LOCK_INIT PTHREAD_MUTEX_INITIALIZER
#define SIGNAL_INIT PTHREAD_COND_INITIALIZER
static void lock(lock_t *l) { pthread_mutex_lock(l); }
static void unlock(lock_t *l) { pthread_mutex_unlock(l); }
static void wait(signal_t *s, lock_t *l) { pthread_cond_wait(s, l); }
static void wake(signal_t *s) { pthread_cond_broadcast(s); }
static void work(void);
static void *begin(void *unused) {
  (void)unused;
  work();
  return NULL;
}
static int spawn(void) {
  /* Signals are for the threads of the program, such as the one that Python handles Ctrl+C on. */
  sigset_t all, before;
  pthread_t thread;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int made = pthread_create(&thread, NULL, begin, NULL) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (made) pthread_detach(thread);
  return made;
}
static void forget(void);
static void watch_forks(void) {
  static int watched;
  if (!watched) pthread_atfork(NULL, NULL, forget);
  watched = 1;
}
#endif

typedef struct {
  void (*task)(void *job, int32_t number, int32_t worker);
  void *job;
  int32_t tasks;
  atomic_int next;
} work_t;

static atomic_int busy; /* some caller has the threads */
static struct {
  lock_t lock;
  signal_t begin, end;
  int32_t threads;        /* that exist */
  work_t *open;           /* what may be joined, or NULL */
  int32_t wanted, joined; /* workers of it, the caller not counted */
  int32_t running;        /* of those, not finished */
  uint64_t round;
} pool = {.lock = LOCK_INIT, .begin = SIGNAL_INIT, .end = SIGNAL_INIT};

static void run(work_t *w, int32_t worker) {
  for (int32_t i; (i = atomic_fetch_add(&w->next, 1)) < w->tasks;) w->task(w->job, i, worker);
}

static void work(void) {
  uint64_t seen = 0;
  lock(&pool.lock);
  for (;;) {
    while (!pool.open || pool.round == seen) wait(&pool.begin, &pool.lock);
    seen = pool.round;
    if (pool.joined == pool.wanted) continue;
    work_t *w = pool.open;
    int32_t worker = ++pool.joined;
    pool.running++;
    unlock(&pool.lock);
    run(w, worker);
    lock(&pool.lock);
    if (--pool.running == 0) wake(&pool.end);
  }
}

#if !defined(_WIN32)
/* In the child of a fork there is one thread, and locks may be held by others that are no more. */
static void forget(void) {
  pool.lock = (lock_t)LOCK_INIT;
  pool.begin = (signal_t)SIGNAL_INIT;
  pool.end = (signal_t)SIGNAL_INIT;
  pool.open = NULL;
  pool.threads = pool.running = 0;
  atomic_store(&busy, 0);
}
#endif

void ab_parallel(int32_t threads, int32_t tasks, void (*task)(void *job, int32_t number, int32_t worker),
                 void *job) {
  work_t w = {task, job, tasks, 0};
  if (threads > MOST_THREADS) threads = MOST_THREADS;
  if (threads > tasks) threads = tasks;
  if (threads <= 1 || atomic_exchange(&busy, 1)) {
    run(&w, 0);
    return;
  }
  watch_forks();
  lock(&pool.lock);
  while (pool.threads < threads - 1 && spawn()) pool.threads++;
  pool.open = &w;
  pool.wanted = threads - 1;
  pool.joined = 0;
  pool.round++;
  wake(&pool.begin);
  unlock(&pool.lock);
  run(&w, 0);
  lock(&pool.lock);
  pool.open = NULL; /* whoever still sleeps need not come */
  while (pool.running) wait(&pool.end, &pool.lock);
  unlock(&pool.lock);
  atomic_store(&busy, 0);
}

int32_t ab_parallel_threads(void) {
  lock(&pool.lock);
  int32_t threads = pool.threads;
  unlock(&pool.lock);
  return threads;
}
