#include "fs/fs.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdlib.h>

struct workers {
	pthread_mutex_t lock; /* guards all below; nothing is taken inside it */
	pthread_cond_t cond;
	struct work *first, **last;
	unsigned idle, started, max;
	bool stop;
	pthread_t threads[];
};

static void *worker_main(void *arg)
{
	struct workers *ws = arg;
	struct work *w;

	pthread_mutex_lock(&ws->lock);
	for (;;) {
		while (ws->first == NULL && !ws->stop) {
			ws->idle++;
			pthread_cond_wait(&ws->cond, &ws->lock);
			ws->idle--;
		}
		if (ws->first == NULL)
			break;
		w = ws->first;
		ws->first = w->next;
		if (ws->first == NULL)
			ws->last = &ws->first;
		pthread_mutex_unlock(&ws->lock);
		request_is_for(w->unique);
		w->run(w);
		pthread_mutex_lock(&ws->lock);
	}
	pthread_mutex_unlock(&ws->lock);
	return NULL;
}

int workers_new(unsigned max, struct workers **ret)
{
	struct workers *ws = calloc(1, sizeof(*ws) + max * sizeof(ws->threads[0]));

	if (ws == NULL)
		return -ENOMEM;
	pthread_mutex_init(&ws->lock, NULL);
	pthread_cond_init(&ws->cond, NULL);
	ws->last = &ws->first;
	ws->max = max;
	*ret = ws;
	return 0;
}

void workers_queue(struct workers *ws, struct work *w)
{
	bool alone;

	if (ws == NULL) { /* the daemon is ending */
		w->run(w);
		return;
	}
	w->next = NULL;
	w->unique = request_unique;
	pthread_mutex_lock(&ws->lock);
	*ws->last = w;
	ws->last = &w->next;
	if (ws->idle > 0)
		pthread_cond_signal(&ws->cond);
	else if (ws->started < ws->max && pthread_create(&ws->threads[ws->started], NULL, worker_main, ws) == 0)
		pthread_setname_np(ws->threads[ws->started++], "worker");
	alone = ws->started == 0;
	if (alone) { /* no thread to be had: do it here */
		ws->first = NULL;
		ws->last = &ws->first;
	}
	pthread_mutex_unlock(&ws->lock);
	if (alone)
		w->run(w);
}

struct last {
	struct work work;
	sem_t done;
};

static void tell_last(struct work *w)
{
	sem_post(&((struct last *)w)->done);
}

void workers_finish(struct workers *ws)
{
	struct last last = { .work.run = tell_last };

	if (ws == NULL)
		return;
	sem_init(&last.done, 0, 0);
	workers_queue(ws, &last.work);
	while (sem_wait(&last.done) < 0)
		;
	sem_destroy(&last.done);
}

void workers_free(struct workers *ws)
{
	if (ws == NULL)
		return;
	pthread_mutex_lock(&ws->lock);
	ws->stop = true;
	pthread_cond_broadcast(&ws->cond);
	pthread_mutex_unlock(&ws->lock);
	for (unsigned i = 0; i < ws->started; i++)
		pthread_join(ws->threads[i], NULL);
	pthread_mutex_destroy(&ws->lock);
	pthread_cond_destroy(&ws->cond);
	free(ws);
}
