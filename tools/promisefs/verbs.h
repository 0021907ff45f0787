/* The verbs, each in the file of its group. All return an exit status and print their own errors. */
#pragma once

struct args;

int verb_mount(const struct args *a);
int verb_umount(const struct args *a);
int verb_put(const struct args *a);
int verb_get(const struct args *a);
int verb_future(const struct args *a);
int verb_wait(const struct args *a);
int verb_fail(const struct args *a);
int verb_cancel(const struct args *a);
int verb_evict(const struct args *a);
int verb_stat(const struct args *a);
int verb_stats(const struct args *a);
int verb_ls(const struct args *a);
int verb_log(const struct args *a);
int verb_doctor(const struct args *a);
int verb_fsck(const struct args *a);
int verb_gc(const struct args *a);
int verb_backup(const struct args *a);
int verb_help(const struct args *a);
int verb_lease(const struct args *a);
int verb_borrow(const struct args *a);
int verb_own(const struct args *a);
int verb_release(const struct args *a);
int verb_once(const struct args *a);
int verb_run(const struct args *a);

int lifetime_begin(const struct args *a);
int lifetime_add(const struct args *a);
int lifetime_end(const struct args *a);
int lifetime_list(const struct args *a);
