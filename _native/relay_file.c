// SPDX-License-Identifier: Apache-2.0
#include "relay_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *map(struct mapped_file *file, int fd)
{
	struct stat info;
	void *data;

	if (fstat(fd, &info) < 0)
		return strerror(errno);
	if (!S_ISREG(info.st_mode) || !info.st_size)
		return NULL;
	data = mmap(NULL, info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return strerror(errno);
	madvise(data, info.st_size, MADV_SEQUENTIAL);
	file->data = data;
	file->size = info.st_size;
	return NULL;
}

const char *file_map(struct mapped_file *file, const char *folder, const char *name)
{
	char path[PATH_MAX];
	const char *error;
	int fd;

	*file = (struct mapped_file){0};
	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
		return "its path is too long";
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return strerror(errno);
	error = map(file, fd);
	close(fd);
	return error;
}

void file_unmap(struct mapped_file *file)
{
	if (file->data)
		munmap((void *)file->data, file->size);
	*file = (struct mapped_file){0};
}

static int is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

int folder_list(const char *folder, char ***names)
{
	struct dirent **entries = NULL;
	int count = scandir(folder, &entries, is_visible, alphasort);

	if (count < 0)
		return -1;
	*names = calloc(count + 1, sizeof(**names));
	for (int i = 0; i < count; i++) {
		if (*names)
			(*names)[i] = strdup(entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	return *names ? count : -1;
}

int file_boot_id(char *id)
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? -1 : read(fd, id, FILE_UUID_SIZE);

	if (fd >= 0)
		close(fd);
	return size == FILE_UUID_SIZE ? 0 : -1;
}
